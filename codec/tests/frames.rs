//! Frame headers and deframing.

mod generate;

use adit_codec::frame::{Deframer, FrameHeader, HEADER_LEN, PAYLOAD_LEN_MAX};
use adit_codec::message::{Message, MessageKind, Protocol, SetTarget};
use adit_codec::{DecodeErrorKind, encode_frame};
use proptest::prelude::*;

#[test]
fn header_bytes() {
    let bytes = [0x02, 0x80, 0x1b, 0x03, 0x02, 0x01];
    let header = FrameHeader::parse(&bytes);
    assert_eq!(
        header,
        FrameHeader { extension_type: 2, channel_msg: true, msg_type: 0x1b, payload_len: 0x01_02_03 }
    );
    assert_eq!(header.to_bytes(), bytes);
    assert_eq!(header.frame_len(), 6 + 0x01_02_03);
}

proptest! {
    #[test]
    fn headers_round_trip(bytes in any::<[u8; HEADER_LEN]>()) {
        let header = FrameHeader::parse(&bytes);
        prop_assert!(header.payload_len <= PAYLOAD_LEN_MAX);
        prop_assert!(header.extension_type < 0x8000);
        prop_assert_eq!(header.to_bytes(), bytes);
    }

    /// However the bytes of a stream arrive, the same frames come out.
    #[test]
    fn any_arrival_gives_the_same_frames(
        messages in proptest::collection::vec(generate::any_pieces(), 1..5),
        steps in proptest::collection::vec(1_usize..5_000, 1..20),
    ) {
        let mut stream = Vec::new();
        for (kind, pieces) in &messages {
            let payload = pieces.payload();
            stream.extend_from_slice(&kind.header(payload.len() as u32).to_bytes());
            stream.extend_from_slice(&payload);
        }

        let mut frames = Vec::new();
        let (mut received, mut start) = (0, 0);
        let mut steps = steps.iter().cycle();
        while received < stream.len() {
            received = stream.len().min(received + steps.next().expect("endless"));
            let mut deframer = Deframer::new(&stream[start..received], PAYLOAD_LEN_MAX);
            while let Some(frame) = deframer.next_frame().expect("no limit") {
                frames.push(frame);
            }
            let (consumed, needed) = (deframer.consumed(), deframer.needed());
            prop_assert!(received - start - consumed < needed);
            start += consumed;
        }
        prop_assert_eq!(start, stream.len());
        prop_assert_eq!(frames.len(), messages.len());
        for (frame, (kind, pieces)) in frames.iter().zip(&messages) {
            prop_assert_eq!(MessageKind::from_header(frame.header), Some(*kind));
            prop_assert_eq!(frame.payload, &pieces.payload()[..]);
        }
    }
}

/// An oversized frame is refused by its header alone, and the error names the message.
#[test]
fn oversized_frames_are_refused_before_their_payload() {
    let target = SetTarget { channel_id: 1, maximum_target: &[0xff; 32] };
    let mut out = [0; 64];
    let len = encode_frame(&target, &mut out).expect("fits");
    assert_eq!(len, 42);

    let mut deframer = Deframer::new(&out[..HEADER_LEN], 35);
    for _ in 0..2 {
        let error = deframer.next_frame().expect_err("36 bytes announced");
        assert_eq!(error.to_string(), "SetTarget.msg_length: 36 bytes, at most 35");
    }
    assert_eq!(deframer.consumed(), 0);

    let mut deframer = Deframer::new(&out[..len], 36);
    let frame = deframer.next_frame().expect("fits").expect("whole");
    let decoded = Message::decode(frame.header, frame.payload, Protocol::Mining).expect("our own");
    assert_eq!(decoded.message, Message::SetTarget(target));
    assert_eq!(deframer.next_frame(), Ok(None));
    assert_eq!(deframer.needed(), HEADER_LEN);

    let unknown = FrameHeader { extension_type: 0x4000, channel_msg: false, msg_type: 0, payload_len: 100 };
    let error = unknown.check_len(99).expect_err("over the maximum");
    assert_eq!((error.message, error.kind), (None, DecodeErrorKind::TooLong { len: 100, max: 99 }));
}

/// Nothing but whole frames comes out, at every length of the buffer.
#[test]
fn partial_frames_wait() {
    let mut out = [0; 64];
    let len = encode_frame(&SetTarget { channel_id: 1, maximum_target: &[1; 32] }, &mut out).expect("fits");
    for received in 0..len {
        let mut deframer = Deframer::new(&out[..received], PAYLOAD_LEN_MAX);
        assert_eq!(deframer.next_frame(), Ok(None));
        assert_eq!(deframer.consumed(), 0);
        assert_eq!(deframer.needed(), if received < HEADER_LEN { HEADER_LEN } else { len });
    }
}
