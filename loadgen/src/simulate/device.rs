//! A simulated device, and the shares that wait for answers.
//!
//! A device is what its channel was told and where its shares stand: 48 bytes at most, so that millions fit beside a pool.
//! Its waiting shares are a list in [`Outstanding`], which all devices of a thread share: memory goes with what is in
//! flight, not with the devices. A share is answered by its sequence number; a success stands for the share it names and for
//! the oldest ones before it, and a refusal of one that is not there any more takes the oldest in its stead, so that counts
//! are right whatever order a pool judges in.

/// No entry.
const NONE: u32 = u32::MAX;

/// What a device may mine: what its shares name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) job_id: u32,
    pub(super) version: u32,
    pub(super) ntime: u32,
}

/// A future job, as far as shares name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FutureJob {
    pub(super) job_id: u32,
    pub(super) version: u32,
}

/// One device on one channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device {
    pub(super) channel_id: u32,
    /// Of the next share; also its nonce, so that all shares of a channel differ.
    pub(super) sequence_number: u32,
    oldest: u32,
    newest: u32,
    pub(super) work: Work,
    pub(super) future: FutureJob,
    /// When `work` came, by the connection's count of activations; 0 for never.
    pub(super) epoch: u32,
    /// Index of the group among the connection's.
    pub(super) group: u8,
    pub(super) extranonce_size: u8,
    pub(super) is_open: bool,
    pub(super) is_extended: bool,
}

impl Device {
    /// A device without a channel.
    pub(super) const fn new() -> Self {
        Self {
            channel_id: 0,
            sequence_number: 1,
            oldest: NONE,
            newest: NONE,
            work: Work { job_id: 0, version: 0, ntime: 0 },
            future: FutureJob { job_id: 0, version: 0 },
            epoch: 0,
            group: 0,
            extranonce_size: 0,
            is_open: false,
            is_extended: false,
        }
    }
}

/// A share that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// When it was meant to be sent, in nanoseconds of the run's clock.
    at_ns: u64,
    sequence_number: u32,
    next: u32,
}

/// The waiting shares of a thread's devices, and the free entries between them.
#[derive(Debug)]
pub(super) struct Outstanding {
    entries: Vec<Entry>,
    free: u32,
    len: usize,
    max: usize,
}

impl Outstanding {
    /// Holds at most `max` shares.
    pub(super) const fn new(max: usize) -> Self {
        Self { entries: Vec::new(), free: NONE, len: 0, max }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_full(&self) -> bool {
        self.len >= self.max
    }

    /// Records the device's next share, and returns its sequence number.
    pub(super) fn submit(&mut self, device: &mut Device, at_ns: u64) -> u32 {
        let sequence_number = device.sequence_number;
        device.sequence_number = sequence_number.wrapping_add(1);
        let entry = Entry { at_ns, sequence_number, next: NONE };
        let index = self.free;
        let index = if index == NONE {
            self.entries.push(entry);
            u32::try_from(self.entries.len() - 1).expect("the bound is below 2^32")
        } else {
            self.free = self.entries[index as usize].next;
            self.entries[index as usize] = entry;
            index
        };
        if device.newest == NONE {
            device.oldest = index;
        } else {
            self.entries[device.newest as usize].next = index;
        }
        device.newest = index;
        self.len += 1;
        sequence_number
    }

    /// Takes the device's oldest share; returns when it was meant to be sent.
    pub(super) fn take_oldest(&mut self, device: &mut Device) -> Option<u64> {
        (device.oldest != NONE).then(|| self.unlink(device, NONE, device.oldest))
    }

    /// Takes the share of a number, or the oldest if that one is not there.
    pub(super) fn take(&mut self, device: &mut Device, sequence_number: u32) -> Option<u64> {
        let (mut before, mut index) = (NONE, device.oldest);
        while index != NONE {
            let entry = self.entries[index as usize];
            if entry.sequence_number == sequence_number {
                return Some(self.unlink(device, before, index));
            }
            (before, index) = (index, entry.next);
        }
        self.take_oldest(device)
    }

    /// How many of a device's shares wait.
    pub(super) fn count(&self, device: &Device) -> u64 {
        let (mut count, mut index) = (0, device.oldest);
        while index != NONE {
            (count, index) = (count + 1, self.entries[index as usize].next);
        }
        count
    }

    fn unlink(&mut self, device: &mut Device, before: u32, index: u32) -> u64 {
        let Entry { at_ns, next, .. } = self.entries[index as usize];
        match before {
            NONE => device.oldest = next,
            before => self.entries[before as usize].next = next,
        }
        if device.newest == index {
            device.newest = before;
        }
        self.entries[index as usize].next = self.free;
        self.free = index;
        self.len -= 1;
        at_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_48_bytes_at_most() {
        assert!(size_of::<Device>() <= 48, "{}", size_of::<Device>());
        assert_eq!(size_of::<Entry>(), 16);
    }

    #[test]
    fn shares_are_taken_by_number_or_by_age() {
        let mut outstanding = Outstanding::new(100);
        let (mut one, mut two) = (Device::new(), Device::new());
        for at_ns in 10..15 {
            assert_eq!(outstanding.submit(&mut one, at_ns), u32::try_from(at_ns - 9).unwrap());
            outstanding.submit(&mut two, 100 + at_ns);
        }
        assert_eq!(outstanding.take(&mut one, 5), Some(14), "the newest");
        assert_eq!(outstanding.take(&mut one, 2), Some(11), "from the middle");
        assert_eq!(outstanding.take(&mut one, 2), Some(10), "the oldest for one that is gone");
        assert_eq!((outstanding.count(&one), outstanding.count(&two)), (2, 5));
        assert_eq!(outstanding.submit(&mut one, 20), 6);
        let taken: Vec<u64> = std::iter::from_fn(|| outstanding.take_oldest(&mut one)).collect();
        assert_eq!(taken, [12, 13, 20]);
        assert_eq!(outstanding.take(&mut one, 6), None);
        let taken: Vec<u64> = std::iter::from_fn(|| outstanding.take_oldest(&mut two)).collect();
        assert_eq!(taken, [110, 111, 112, 113, 114]);
        assert_eq!(outstanding.len(), 0);
        assert!(outstanding.entries.len() <= 10, "entries are used again");
    }
}
