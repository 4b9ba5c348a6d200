//! What is on its way to one peer: sealed and under way, gathered for the next send, or waiting behind it.
//!
//! Frames are sealed as late as can be, because sealed frames cannot be reordered, and because many are sealed faster at once than
//! one by one: what a tick brings is gathered, laid out for sealing, and sealed as it is sent. While a send is under way, frames
//! wait elsewhere, and work overtakes replies. Work keeps its order: a tip leaves behind the future template or job that it
//! names, and nothing else that waits and that the service says it makes void. Replies are sealed in portions, because some are megabytes long (a template's transactions) and work that comes
//! meanwhile waits for what is under way.
//!
//! Bounds: the owner drops a connection whose bytes exceed its limit, and those with the largest backlogs when the bytes of
//! all exceed the shard's ([`SendBuffers::held`]); a send has at most [`SEALED_REPLIES_LEN`] bytes of replies, or one that
//! is longer.

use adit_codec::frame::{FrameHeader, HEADER_LEN};
use adit_codec::noise::{SealError, Sealer, sealed_len};
use adit_proto::{Instant, Priority};

use crate::limits::tick::SEALED_REPLIES_LEN;

/// Frames that wait behind a send, one after the other.
#[derive(Default)]
struct Waiting {
    work: Vec<u8>,
    replies: Vec<u8>,
}

impl Waiting {
    fn len(&self) -> usize {
        self.work.len() + self.replies.len()
    }
}

/// A connection's outgoing side.
#[derive(Default)]
pub(super) struct Outgoing {
    sealer: Option<Sealer>,
    /// What goes with the next send: bytes that are sent as they are, then frames as they lie to be sealed.
    gathered: Vec<u8>,
    /// How many of these bytes are sent as they are.
    raw_len: usize,
    /// Bytes of the send that is under way.
    under_way: usize,
    /// When the tip was handed over that is gathered or waits.
    tip: Option<Instant>,
    /// When the tip was handed over that is under way.
    tip_under_way: Option<Instant>,
    waiting: Option<Box<Waiting>>,
    /// Its part of [`SendBuffers::held`].
    counted: usize,
}

/// Send buffers that come back and are used again, and the count of all bytes that wait to be sent.
pub(super) struct SendBuffers {
    buffers: Vec<Vec<u8>>,
    held: usize,
    count_max: usize,
    capacity_max: usize,
}

impl SendBuffers {
    pub(super) fn new(count_max: usize, capacity_max: usize) -> Self {
        Self { buffers: Vec::with_capacity(count_max), held: 0, count_max, capacity_max }
    }

    /// Bytes that wait or are under way on all connections together.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    fn take(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    pub(super) fn give_back(&mut self, mut buffer: Vec<u8>) {
        if self.buffers.len() < self.count_max && (1..=self.capacity_max).contains(&buffer.capacity()) {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}

impl Outgoing {
    pub(super) fn set_sealer(&mut self, sealer: Sealer) {
        self.sealer = Some(sealer);
    }

    /// Bytes that wait behind a send that is under way. What one tick emits at once does not count: its size is ours.
    pub(super) fn backlog(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.len())
    }

    /// Bytes that wait or are under way, as they count for the shard.
    pub(super) fn held(&self) -> usize {
        self.counted
    }

    /// Counts what is there now: after each change.
    fn count(&mut self, buffers: &mut SendBuffers) {
        let held = self.under_way + self.gathered.len() + self.backlog();
        buffers.held = buffers.held + held - self.counted;
        self.counted = held;
    }

    /// The next frame is the SetNewPrevHash of a tip that was handed over at `since`. The oldest that waits counts.
    pub(super) fn note_tip(&mut self, since: Instant) {
        self.tip.get_or_insert(since);
    }

    /// The tip that was in the send that is done.
    pub(super) fn take_sent_tip(&mut self) -> Option<Instant> {
        self.tip_under_way.take()
    }

    /// Nothing is under way and nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way == 0 && self.gathered.is_empty() && self.waiting.is_none()
    }

    /// Bytes that are sent as they are: an act of the handshake.
    pub(super) fn push_raw(&mut self, bytes: &[u8], buffers: &mut SendBuffers) {
        debug_assert_eq!(self.raw_len, self.gathered.len(), "frames follow the handshake");
        self.ensure_buffer(buffers);
        self.gathered.extend_from_slice(bytes);
        self.raw_len = self.gathered.len();
        self.count(buffers);
    }

    /// Takes a plaintext frame: for the next send, or keeps it while one is under way. Returns whether the connection was
    /// untouched before, so that its owner has to send.
    pub(super) fn push(
        &mut self,
        priority: Priority,
        frame: &[u8],
        buffers: &mut SendBuffers,
    ) -> Result<bool, SealError> {
        let is_portion_full = priority == Priority::Reply
            && (self.waiting.is_some() || self.gathered.len() >= SEALED_REPLIES_LEN);
        if self.under_way == 0 && !is_portion_full {
            let untouched = self.gathered.is_empty();
            self.ensure_buffer(buffers);
            self.place(frame)?;
            self.count(buffers);
            return Ok(untouched);
        }
        let waiting = self.waiting.get_or_insert_default();
        match priority {
            Priority::Work => waiting.work.extend_from_slice(frame),
            Priority::Reply => waiting.replies.extend_from_slice(frame),
        }
        self.count(buffers);
        Ok(false)
    }

    /// Forgets frames of work that wait behind a send: those that `is_void` says.
    pub(super) fn drop_work(&mut self, is_void: impl Fn(&[u8]) -> bool, buffers: &mut SendBuffers) {
        let Some(Waiting { work, .. }) = self.waiting.as_deref_mut() else { return };
        let (mut seen, mut kept) = (0, 0);
        while let Some(header) = work[seen..].first_chunk::<HEADER_LEN>() {
            let frame = seen..seen + FrameHeader::parse(header).frame_len();
            seen = frame.end;
            if !is_void(&work[frame.clone()]) {
                let len = frame.len();
                work.copy_within(frame, kept);
                kept += len;
            }
        }
        work.truncate(kept);
        self.count(buffers);
    }

    /// What is to be sent now. The send counts as under way until [`Self::handle_sent`].
    pub(super) fn take_send(&mut self, buffers: &mut SendBuffers) -> Result<Option<Vec<u8>>, SealError> {
        if self.under_way > 0 {
            return Ok(None);
        }
        if let Some(mut waiting) = self.waiting.take() {
            self.ensure_buffer(buffers);
            self.place_up_to(usize::MAX, &waiting.work)?;
            let placed = self.place_up_to(SEALED_REPLIES_LEN, &waiting.replies)?;
            if placed < waiting.replies.len() {
                waiting.work.clear();
                waiting.replies.drain(..placed);
                self.waiting = Some(waiting);
            }
            self.count(buffers);
        }
        if self.gathered.is_empty() {
            return Ok(None);
        }
        let frames = &mut self.gathered[std::mem::take(&mut self.raw_len)..];
        if !frames.is_empty() {
            self.sealer.as_mut().expect("frames follow the handshake").seal_placed(frames)?;
        }
        self.under_way = self.gathered.len();
        // All work is in it.
        self.tip_under_way = self.tip.take();
        Ok(Some(std::mem::take(&mut self.gathered)))
    }

    /// The send is done. Returns how many bytes it had.
    pub(super) fn handle_sent(&mut self, buffers: &mut SendBuffers) -> usize {
        let sent = std::mem::take(&mut self.under_way);
        self.count(buffers);
        sent
    }

    /// Forgets what waits: nobody will read it. What is under way no longer counts either: its connection is over, and the
    /// buffer comes back as soon as the send is cancelled.
    pub(super) fn discard(&mut self, buffers: &mut SendBuffers) {
        (self.gathered, self.raw_len) = (Vec::new(), 0);
        self.waiting = None;
        buffers.held -= std::mem::take(&mut self.counted);
    }

    fn ensure_buffer(&mut self, buffers: &mut SendBuffers) {
        if self.gathered.capacity() == 0 {
            self.gathered = buffers.take();
        }
    }

    /// Places whole frames until `len` bytes are gathered in all; says how many bytes of frames that took.
    fn place_up_to(&mut self, len: usize, frames: &[u8]) -> Result<usize, SealError> {
        let mut rest = frames;
        while let Some(header) = rest.first_chunk::<HEADER_LEN>()
            && self.gathered.len() < len
        {
            let (frame, after) = rest.split_at(FrameHeader::parse(header).frame_len());
            self.place(frame)?;
            rest = after;
        }
        Ok(frames.len() - rest.len())
    }

    /// Lays a frame out behind what is gathered.
    fn place(&mut self, frame: &[u8]) -> Result<(), SealError> {
        let start = self.gathered.len();
        let payload_len =
            frame.len().checked_sub(HEADER_LEN).ok_or(SealError::Frame { frame_len: frame.len() })?;
        self.gathered.resize(start + sealed_len(payload_len), 0);
        Sealer::place_frame(frame, &mut self.gathered[start..]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use adit_codec::keys::{AuthoritySecretKey, StaticKeyPair};
    use adit_codec::noise::{ACT2_LEN, EphemeralKey, Initiator, Responder, SecureDeframer};

    use super::*;

    fn session() -> (Outgoing, SecureDeframer) {
        let key = StaticKeyPair::new(&[7; 64]).unwrap();
        let authority = AuthoritySecretKey::from_bytes(&[9; 32]).unwrap();
        let certificate = authority.certify(key.public_key(), 0, u32::MAX, &[0; 32]);
        let (initiator, act1) = Initiator::new(EphemeralKey::new(&[1; 64]).unwrap());
        let mut act2 = [0; ACT2_LEN];
        let server =
            Responder::respond(&act1, &key, &certificate, EphemeralKey::new(&[2; 64]).unwrap(), &mut act2);
        let client = initiator.finish(&act2, None, 1, 0).unwrap();
        let mut outgoing = Outgoing::default();
        outgoing.set_sealer(server.sealer);
        (outgoing, SecureDeframer::new(client.opener, 1 << 20))
    }

    fn frame(msg_type: u8, payload: &[u8]) -> Vec<u8> {
        let payload_len = payload.len() as u32;
        let header = FrameHeader { extension_type: 0, channel_msg: false, msg_type, payload_len };
        [&header.to_bytes()[..], payload].concat()
    }

    fn received(deframer: &mut SecureDeframer, mut bytes: Vec<u8>) -> Vec<u8> {
        let mut input = &mut bytes[..];
        let mut types = Vec::new();
        while let Some((header, _)) = deframer.next_frame(&mut input).unwrap() {
            types.push(header.msg_type);
        }
        types
    }

    #[test]
    fn work_overtakes_replies_that_are_not_sealed() {
        let (mut outgoing, mut deframer) = session();
        let mut buffers = SendBuffers::new(4, 4096);
        assert!(outgoing.push(Priority::Reply, &frame(1, b"a"), &mut buffers).unwrap());
        assert!(!outgoing.push(Priority::Work, &frame(2, b"b"), &mut buffers).unwrap());
        let first = outgoing.take_send(&mut buffers).unwrap().unwrap();
        assert_eq!(outgoing.backlog(), 0);
        for (priority, msg_type) in
            [(Priority::Reply, 3), (Priority::Work, 4), (Priority::Reply, 5), (Priority::Work, 6)]
        {
            assert!(!outgoing.push(priority, &frame(msg_type, &[0; 100]), &mut buffers).unwrap());
        }
        assert_eq!(outgoing.backlog(), 4 * 106);
        assert_eq!((outgoing.held(), buffers.held()), (first.len() + 4 * 106, outgoing.held()));
        assert!(outgoing.take_send(&mut buffers).unwrap().is_none());
        assert_eq!(outgoing.handle_sent(&mut buffers), first.len());
        let second = outgoing.take_send(&mut buffers).unwrap().unwrap();
        assert_eq!(received(&mut deframer, first), [1, 2]);
        assert_eq!(received(&mut deframer, second), [4, 6, 3, 5]);
        assert!(!outgoing.is_idle());
        outgoing.handle_sent(&mut buffers);
        assert!(outgoing.is_idle());
    }

    #[test]
    fn work_that_is_void_leaves_the_queue_and_the_count() {
        let (mut outgoing, mut deframer) = session();
        let mut buffers = SendBuffers::new(4, 4096);
        outgoing.drop_work(|_| true, &mut buffers);
        outgoing.push(Priority::Work, &frame(1, b"first"), &mut buffers).unwrap();
        outgoing.drop_work(|_| true, &mut buffers);
        let mut sent = vec![outgoing.take_send(&mut buffers).unwrap().unwrap()];
        for (msg_type, len) in [(2, 10), (3, 0), (4, 500), (2, 0), (5, 7), (2, 9)] {
            outgoing.push(Priority::Work, &frame(msg_type, &vec![0; len]), &mut buffers).unwrap();
        }
        outgoing.push(Priority::Reply, &frame(2, b"a reply"), &mut buffers).unwrap();
        outgoing.drop_work(|frame| frame[2] == 2, &mut buffers);
        assert_eq!(outgoing.backlog(), 6 + 506 + 13 + 13);
        assert_eq!((outgoing.held(), buffers.held()), (sent[0].len() + outgoing.backlog(), outgoing.held()));
        outgoing.handle_sent(&mut buffers);
        sent.extend(outgoing.take_send(&mut buffers).unwrap());
        let received: Vec<_> = sent.into_iter().flat_map(|sent| received(&mut deframer, sent)).collect();
        assert_eq!(received, [1, 3, 4, 5, 2]);
    }

    #[test]
    fn what_all_hold_is_counted_until_it_is_sent_or_given_up() {
        let mut buffers = SendBuffers::new(4, 4096);
        let (mut one, _) = session();
        let (mut other, _) = session();
        for outgoing in [&mut one, &mut other] {
            outgoing.push(Priority::Work, &frame(1, &[0; 1000]), &mut buffers).unwrap();
            outgoing.take_send(&mut buffers).unwrap().unwrap();
            outgoing.push(Priority::Reply, &frame(2, &[0; 1000]), &mut buffers).unwrap();
        }
        assert_eq!(buffers.held(), one.held() + other.held());
        assert!((4000..4500).contains(&buffers.held()), "{}", buffers.held());
        one.discard(&mut buffers);
        assert_eq!((one.held(), buffers.held()), (0, other.held()));
        assert!(one.handle_sent(&mut buffers) > 1000, "it comes back, and was not counted any more");
        other.handle_sent(&mut buffers);
        let rest = other.take_send(&mut buffers).unwrap().unwrap();
        assert_eq!(buffers.held(), rest.len());
        other.handle_sent(&mut buffers);
        assert_eq!((one.held(), other.held(), buffers.held()), (0, 0, 0));
    }

    #[test]
    fn a_tip_waits_for_one_portion_of_replies() {
        let (mut outgoing, mut deframer) = session();
        let mut buffers = SendBuffers::new(4, 4096);
        let long = frame(1, &vec![0; SEALED_REPLIES_LEN]);
        assert!(outgoing.push(Priority::Reply, &long, &mut buffers).unwrap());
        for msg_type in [2, 3] {
            assert!(!outgoing.push(Priority::Reply, &frame(msg_type, b""), &mut buffers).unwrap());
        }
        for _ in 0..2 {
            assert!(!outgoing.push(Priority::Reply, &long, &mut buffers).unwrap());
        }
        assert_eq!(outgoing.backlog(), 12 + 2 * long.len());
        let mut sent = Vec::new();
        while let Some(send) = outgoing.take_send(&mut buffers).unwrap() {
            if sent.is_empty() {
                // A template and its tip, while the first portion is under way.
                for msg_type in [8, 9] {
                    assert!(!outgoing.push(Priority::Work, &frame(msg_type, b"tip"), &mut buffers).unwrap());
                }
            }
            sent.push(received(&mut deframer, send));
            outgoing.handle_sent(&mut buffers);
        }
        assert_eq!(sent, [vec![1], vec![8, 9, 2, 3, 1], vec![1]]);
        assert!(outgoing.is_idle() && outgoing.backlog() == 0 && buffers.held() == 0);
    }

    #[test]
    fn buffers_are_kept_within_bounds() {
        let mut buffers = SendBuffers::new(2, 1000);
        buffers.give_back(Vec::new());
        buffers.give_back(Vec::with_capacity(2000));
        assert!(buffers.buffers.is_empty());
        for _ in 0..3 {
            buffers.give_back(Vec::with_capacity(100));
        }
        assert_eq!(buffers.buffers.len(), 2);
    }
}
