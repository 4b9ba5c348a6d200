//! Targets of the codec: deframing, messages, fields of extensions.

use adit_codec::frame::{Deframer, Frame, FrameHeader, HEADER_LEN};
use adit_codec::message::{Message, MessageKind, Protocol};
use adit_codec::tlv::{TLV_HEADER_LEN, Tlvs, USER_IDENTITY_LEN_MAX, encode_tlv, user_identity};
use adit_codec::wire::WireType;
use adit_codec::{DecodeError, DecodeErrorKind, EncodeErrorKind};

/// Deframing: two bytes choose the longest payload, one where the stream is cut, the rest is the stream.
///
/// What comes out lies in the stream, one frame after the other, none over the maximum; a stream in two parts gives
/// the same frames.
pub fn frame(bytes: &[u8]) {
    let Some(([max_low, max_high, cut], stream)) = bytes.split_first_chunk() else { return };
    let payload_len_max = u32::from(u16::from_le_bytes([*max_low, *max_high]));

    let (whole, error) = frames(stream, payload_len_max);
    let mut at = 0;
    for frame in &whole {
        assert!(frame.header.payload_len <= payload_len_max);
        assert_eq!(frame.payload.len(), frame.header.payload_len as usize);
        assert_eq!(stream[at..][..HEADER_LEN], frame.header.to_bytes());
        assert_eq!(&stream[at + HEADER_LEN..][..frame.payload.len()], frame.payload);
        at += frame.header.frame_len();
    }
    if let Some(error) = error {
        assert_eq!(error.field, "msg_length");
        assert!(matches!(error.kind, DecodeErrorKind::TooLong { len, max } if len > max));
    }

    let cut = stream.len() * usize::from(*cut) / 256;
    let (mut parts, mut first_error) = frames(&stream[..cut], payload_len_max);
    let consumed: usize = parts.iter().map(|frame| frame.header.frame_len()).sum();
    let (rest, rest_error) = frames(&stream[consumed..], payload_len_max);
    parts.extend(rest);
    first_error = first_error.or(rest_error);
    assert_eq!((parts, first_error), (whole, error));
}

/// The frames of a stream, and the error that ends it.
fn frames(stream: &[u8], payload_len_max: u32) -> (Vec<Frame<'_>>, Option<DecodeError>) {
    let mut deframer = Deframer::new(stream, payload_len_max);
    let mut frames = Vec::new();
    loop {
        match deframer.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => {
                assert!(stream.len() - deframer.consumed() < deframer.needed());
                return (frames, None);
            }
            Err(error) => {
                assert_eq!(deframer.next_frame(), Err(error), "the stream cannot go on");
                return (frames, Some(error));
            }
        }
    }
}

/// Messages: a frame's header and payload, decoded for every protocol.
///
/// Errors name a field of the message. What decodes encodes to the same bytes, but for BOOL's padding, and cut off
/// anywhere it is an error.
pub fn message(bytes: &[u8]) {
    let Some((header, payload)) = bytes.split_first_chunk() else { return };
    let header = FrameHeader::parse(header);
    for protocol in [Protocol::Mining, Protocol::JobDeclaration, Protocol::TemplateDistribution] {
        match Message::decode(header, payload, protocol) {
            Ok(decoded) => {
                let kind = decoded.message.kind();
                assert_eq!(MessageKind::from_header(header), Some(kind));
                assert!(kind.protocol().is_none_or(|own| own == protocol));
                let len = payload.len() - decoded.trailing.len();
                assert_eq!(decoded.trailing, &payload[len..]);
                encodes_to(&decoded.message, &payload[..len]);
                cut_off(kind, &payload[..len]);
                walk(&decoded.message);
            }
            Err(error) => names_its_field(header, error),
        }
    }
}

fn names_its_field(header: FrameHeader, error: DecodeError) {
    assert!(!error.to_string().is_empty());
    match error.message {
        Some(kind) => {
            assert_eq!(MessageKind::from_header(header), Some(kind));
            let known = kind.row().fields.iter().any(|field| field.name == error.field);
            assert!(known || matches!(error.kind, DecodeErrorKind::OtherProtocol { .. }), "{error}");
        }
        None => {
            assert_eq!(MessageKind::from_header(header), None);
            assert_eq!(error.is_ignorable(), header.extension_type > 1);
        }
    }
}

fn encodes_to(message: &Message<'_>, bytes: &[u8]) {
    let fields = message.kind().row().fields;
    let count = |wire_type| fields.iter().filter(|field| field.wire_type == wire_type).count();
    assert_eq!(message.encoded_len(), bytes.len());
    let mut out = vec![0; bytes.len()];
    match message.encode_into(&mut out) {
        Ok(written) => {
            assert_eq!(written, bytes.len());
            let differing: Vec<_> = out.iter().zip(bytes).filter(|(ours, theirs)| ours != theirs).collect();
            assert!(differing.len() <= count(WireType::Bool));
            assert!(differing.iter().all(|(ours, theirs)| **ours == **theirs & 1));
        }
        Err(error) => {
            assert!(matches!(error.kind, EncodeErrorKind::ControlCharacter { .. }), "{error}");
            assert_eq!(count(WireType::ErrorCode), 1);
            return;
        }
    }
    if let Some(short) = bytes.len().checked_sub(1) {
        let error = message.encode_into(&mut out[..short]).expect_err("one byte is missing");
        assert_eq!(error.kind, EncodeErrorKind::BufferTooSmall { needed: bytes.len(), have: short });
    }
}

/// Cuts a message at lengths that cover short ones wholly and long ones evenly.
fn cut_off(kind: MessageKind, bytes: &[u8]) {
    for cut in (0..bytes.len()).step_by(1 + bytes.len() / 64) {
        let error = Message::decode_kind(kind, &bytes[..cut]).expect_err("cut off");
        assert!(
            matches!(error.kind, DecodeErrorKind::Truncated { needed, left } if left < needed),
            "{error}"
        );
    }
}

/// Looks at every item of a message.
fn walk(message: &Message<'_>) {
    struct Nowhere;
    impl core::fmt::Write for Nowhere {
        fn write_str(&mut self, _: &str) -> core::fmt::Result {
            Ok(())
        }
    }
    core::fmt::write(&mut Nowhere, format_args!("{message:?}")).expect("goes nowhere");
}

/// Fields of extensions: a byte counts the negotiated extensions that follow (at most three), the rest is what comes
/// after a message.
pub fn tlv(bytes: &[u8]) {
    let Some(([count], rest)) = bytes.split_first_chunk() else { return };
    let Some((negotiated, trailing)) = rest.split_at_checked(usize::from(count % 4) * 2) else { return };
    let negotiated: Vec<u16> =
        negotiated.chunks_exact(2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]])).collect();

    let (mut taken, mut again) = (0, Vec::new());
    let mut fields = Vec::new();
    for tlv in Tlvs::new(trailing, &negotiated) {
        let Ok(tlv) = tlv else { break };
        assert!(negotiated.contains(&tlv.extension_type));
        taken += TLV_HEADER_LEN + tlv.value.len();
        let mut out = vec![0; TLV_HEADER_LEN + tlv.value.len()];
        encode_tlv(MessageKind::SubmitSharesExtended, tlv, &mut out).expect("what was read can be written");
        again.extend_from_slice(&out);
        fields.push(Ok(tlv));
    }
    assert!(taken <= trailing.len());
    // What is written is little-endian, and the first byte order that fits is taken.
    assert_eq!(Tlvs::new(&again, &negotiated).collect::<Vec<_>>(), fields);

    assert_eq!(user_identity(trailing, false), Ok(None));
    match user_identity(trailing, true) {
        Ok(Some(name)) => assert!(name.len() <= USER_IDENTITY_LEN_MAX),
        Ok(None) => {}
        Err(error) => assert!(error.to_string().starts_with("SubmitSharesExtended.")),
    }
}
