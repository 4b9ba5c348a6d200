//! The interface, whatever the backend.

use std::sync::OnceLock;

use crate::arch::{Kernel, Lanes};
use crate::backend::Backend;
use crate::sealed::{Frames, split_header, split_payload};
use crate::{
    Forged, KEY_LEN, LANES, Opening, SEALED_HEADER_LEN, SMALL_LEN_MAX, TAG_LEN, calibration, fallback,
    payload_len,
};

/// The sealed length of the frame that comes most, SubmitSharesStandard: how many bytes are taken for a frame when it is
/// guessed how many there are.
const USUAL_FRAME_LEN: usize = SEALED_HEADER_LEN + 24 + TAG_LEN;

/// One connection's key and received bytes.
pub struct OpenJob<'a> {
    /// The connection's key.
    pub key: &'a [u8; KEY_LEN],
    /// The header's nonce.
    pub nonce: u64,
    /// What was received, from the frame on.
    pub bytes: &'a mut [u8],
    /// The longest payload that is opened, in bytes.
    pub payload_len_max: usize,
}

/// ChaCha20-Poly1305 with the kernels of this CPU: a choice, without a key. See the [crate's documentation](crate) for how
/// it is made.
#[derive(Clone, Copy, Debug)]
pub struct Aead {
    kernel: Kernel,
    lanes: Option<LanesFrom>,
}

/// A kernel for several frames, and when it is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LanesFrom {
    pub(crate) lanes: Lanes,
    /// From how many frames on a pass over half the lanes is worth it, and from how many on one over all.
    pub(crate) half_min: u8,
    pub(crate) full_min: u8,
}

impl LanesFrom {
    /// Where nothing was measured: figures of a Zen 4.
    fn usual(lanes: Lanes) -> Self {
        Self { lanes, half_min: 3, full_min: 6 }
    }

    /// How many of `count` frames the next pass takes; 0 if they are opened or sealed one by one.
    #[inline]
    fn pass(&self, count: usize) -> usize {
        let count = count.min(LANES);
        if count >= usize::from(self.full_min) {
            count
        } else if count >= usize::from(self.half_min) {
            count.min(LANES / 2)
        } else {
            0
        }
    }
}

impl Aead {
    /// The fastest kernels on this CPU. The first call of the process measures them, for less than 1 ms (no measurement begins
    /// after 2 ms); later calls give the same answer at once.
    #[must_use]
    pub fn detect() -> Self {
        static DETECTED: OnceLock<Aead> = OnceLock::new();
        *DETECTED.get_or_init(|| {
            let kernel = calibration::fastest();
            Self { kernel, lanes: calibration::lanes(kernel) }
        })
    }

    /// One backend; `None` if this CPU cannot run it.
    #[must_use]
    pub fn forced(backend: Backend) -> Option<Self> {
        let lanes = Lanes::of(backend).map(LanesFrom::usual);
        Kernel::of(backend).map(|kernel| Self { kernel, lanes })
    }

    /// The backend that takes small frames.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.kernel.backend()
    }

    /// What takes how many frames, for the log: `avx-512, 8 lanes for 3 frames and more`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self.lanes {
            None => self.backend().to_string(),
            Some(LanesFrom { half_min, full_min, .. }) => {
                format!("{}, {LANES} lanes for {} frames and more", self.backend(), half_min.min(full_min))
            }
        }
    }

    /// Opens a text where it lies.
    ///
    /// # Errors
    /// [`Forged`] if the tag is not that of text, nonce and associated data.
    #[inline]
    pub fn open(
        &self,
        key: &[u8; KEY_LEN],
        nonce: u64,
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Forged> {
        if associated.is_empty() && text.len() <= SMALL_LEN_MAX {
            self.kernel.open(key, nonce, text, tag)
        } else {
            fallback::Key::new(key).open_with(nonce, associated, text, tag)
        }
    }

    /// Seals a text where it lies, and returns its tag.
    ///
    /// # Panics
    /// If the text is longer than ChaCha20 allows, 256 GB.
    #[inline]
    pub fn seal(&self, key: &[u8; KEY_LEN], nonce: u64, associated: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        if associated.is_empty() && text.len() <= SMALL_LEN_MAX {
            self.kernel.seal(key, nonce, text)
        } else {
            fallback::Key::new(key).seal_with(nonce, associated, text)
        }
    }

    /// Opens the frame that `bytes` begin with, where it lies: the header under `nonce`, and under the next one the
    /// payload, if all of it is there and it is not longer than `payload_len_max`. Afterwards the plaintext header is the
    /// first [`HEADER_LEN`] bytes, and the payload begins at [`SEALED_HEADER_LEN`].
    ///
    /// [`HEADER_LEN`]: crate::HEADER_LEN
    ///
    /// # Errors
    /// [`Forged`] if header or payload do not verify, or `bytes` are shorter than a sealed header. The header may be open
    /// then, but no payload is.
    #[inline]
    pub fn open_frame(
        &self,
        key: &[u8; KEY_LEN],
        nonce: u64,
        bytes: &mut [u8],
        payload_len_max: usize,
    ) -> Result<Opening, Forged> {
        match self.kernel.open_frame(key, nonce, bytes, payload_len_max)? {
            Opening::Frame => Ok(Opening::Frame),
            Opening::Header => open_long_payload(key, nonce, bytes, payload_len_max),
        }
    }

    /// Opens frames of one connection that lie one after the other, as far as that is worth it: up to [`LANES`] whole
    /// frames with payloads of at most 64 bytes and within the limit, none of them empty. Returns how many: their texts are
    /// plain where they lie, and each has used two nonces. What follows is as it was, and [`Self::open_frame`] goes on with
    /// it; a forged frame is among that.
    #[inline]
    pub fn open_run(
        &self,
        key: &[u8; KEY_LEN],
        nonce: u64,
        bytes: &mut [u8],
        payload_len_max: usize,
    ) -> usize {
        let Some(plan) = &self.lanes else { return 0 };
        match plan.pass(bytes.len() / USUAL_FRAME_LEN) {
            0 => 0,
            count => plan.lanes.open_run(count, key, nonce, bytes, payload_len_max),
        }
    }

    /// Seals frames of one connection that lie one after the other, as far as that is worth it: up to [`LANES`] with payloads of 1
    /// to 64 bytes. Each lies as [`Self::seal_frame`] takes it: header, room for its tag, payload, room for its tag. Returns how
    /// many are sealed, each of which has used two nonces, and how many bytes they have. What follows is as it was, and
    /// [`Self::seal_frame`] goes on with it.
    #[inline]
    pub fn seal_run(&self, key: &[u8; KEY_LEN], nonce: u64, bytes: &mut [u8]) -> (usize, usize) {
        let Some(plan) = &self.lanes else { return (0, 0) };
        let (frames, count) = cut(bytes);
        let count = plan.pass(count);
        if count == 0 {
            return (0, 0);
        }
        let len = frames[..count].iter().map(|frame| frame.len()).sum();
        plan.lanes.seal_run(count, key, nonce, frames);
        (count, len)
    }

    /// Opens the first frame of each job, as [`Self::open_frame`] does, and says what became of it. Jobs do not depend on
    /// one another; hand over what there is, in any number.
    ///
    /// # Panics
    /// If there are not as many outcomes as jobs.
    pub fn open_frames(&self, jobs: &mut [OpenJob<'_>], outcomes: &mut [Result<Opening, Forged>]) {
        assert_eq!(jobs.len(), outcomes.len(), "an outcome for each job");
        let (mut jobs, mut outcomes) = (jobs, outcomes);
        if let Some(plan) = &self.lanes {
            while let count @ 1.. = plan.pass(jobs.len()) {
                let (front, later) = jobs.split_at_mut(count);
                let (front_outcomes, later_outcomes) = outcomes.split_at_mut(count);
                open_in_lanes(plan.lanes, front, front_outcomes);
                (jobs, outcomes) = (later, later_outcomes);
            }
        }
        for (job, outcome) in jobs.iter_mut().zip(outcomes) {
            *outcome = self.open_frame(job.key, job.nonce, job.bytes, job.payload_len_max);
        }
    }

    /// Seals a frame where it lies: the header under `nonce`, and the payload, unless it is empty, under the next one. The
    /// first six of the header's bytes are its plaintext, the others room for its tag; the payload's last 16 bytes are room
    /// for its tag, and an empty one has none.
    ///
    /// # Panics
    /// If the payload has bytes, but fewer than a tag's and one.
    #[inline]
    pub fn seal_frame(
        &self,
        key: &[u8; KEY_LEN],
        nonce: u64,
        header: &mut [u8; SEALED_HEADER_LEN],
        payload: &mut [u8],
    ) {
        assert!(payload.is_empty() || payload.len() > TAG_LEN, "room for the payload's tag");
        if payload.len() <= SMALL_LEN_MAX + TAG_LEN {
            self.kernel.seal_frame(key, nonce, header, payload);
        } else {
            fallback::Key::new(key).seal_frame(nonce, header, payload);
        }
    }
}

/// The small frames at the front of plaintext ones that lie as they are to be sealed, and how many there are.
#[inline]
fn cut(mut bytes: &mut [u8]) -> ([&mut [u8]; LANES], usize) {
    let mut frames: [&mut [u8]; LANES] = Default::default();
    let mut count = 0;
    while count < LANES
        && let Some(header) = bytes.first_chunk()
        && let len @ 1..=SMALL_LEN_MAX = payload_len(header)
        && let Some((frame, rest)) =
            core::mem::take(&mut bytes).split_at_mut_checked(SEALED_HEADER_LEN + len + TAG_LEN)
    {
        (frames[count], bytes) = (frame, rest);
        count += 1;
    }
    (frames, count)
}

/// One to [`LANES`] jobs.
fn open_in_lanes(lanes: Lanes, jobs: &mut [OpenJob<'_>], outcomes: &mut [Result<Opening, Forged>]) {
    let count = jobs.len();
    // A lane without a job has no bytes; its keystream is not looked at.
    let (mut keys, mut nonces) = ([jobs[0].key; LANES], [0; LANES]);
    let mut frames = Frames { bytes: Default::default(), payload_len_max: [0; LANES] };
    for (lane, job) in jobs.iter_mut().enumerate() {
        (keys[lane], nonces[lane]) = (job.key, job.nonce);
        frames.bytes[lane] = &mut *job.bytes;
        frames.payload_len_max[lane] = job.payload_len_max;
    }
    let opened = lanes.open_frames(count, keys, nonces, frames);
    for ((job, outcome), opened) in jobs.iter_mut().zip(outcomes).zip(opened) {
        *outcome = match opened {
            Ok(Opening::Header) => open_long_payload(job.key, job.nonce, job.bytes, job.payload_len_max),
            _ => opened,
        };
    }
}

/// Opens the payload of a frame whose header was opened by a kernel that did not take the payload.
#[cold]
fn open_long_payload(
    key: &[u8; KEY_LEN],
    nonce: u64,
    bytes: &mut [u8],
    payload_len_max: usize,
) -> Result<Opening, Forged> {
    let (header, rest) = split_header(bytes).ok_or(Forged)?;
    let len = payload_len(header.text);
    let Some(payload) = split_payload(rest, len, payload_len_max) else { return Ok(Opening::Header) };
    fallback::Key::new(key).open(nonce.wrapping_add(1), payload.text, payload.tag)?;
    Ok(Opening::Frame)
}
