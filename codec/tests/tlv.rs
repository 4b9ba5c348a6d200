//! Fields of extensions behind messages: both byte orders, limits, what is ignored.

use adit_codec::message::{Message, MessageKind, Protocol, SubmitSharesExtended};
use adit_codec::tlv::{Tlv, Tlvs, encode_tlv, encode_user_identity, user_identity};
use adit_codec::{DecodeErrorKind, EncodeErrorKind, encode_frame_with_trailing};
use proptest::prelude::*;

const LITTLE: &[u8] = b"\x02\x00\x01\x0a\x00Worker_001";
/// The example of extension 0x0002, section 2, byte for byte.
const BIG: &[u8] = b"\x00\x02\x01\x00\x0aWorker_001";

#[test]
fn little_endian_is_written() {
    let mut out = [0; 15];
    assert_eq!(encode_user_identity(b"Worker_001", &mut out), Ok(15));
    assert_eq!(out, LITTLE);
}

#[test]
fn both_byte_orders_are_read_where_negotiated() {
    for trailing in [LITTLE, BIG] {
        assert_eq!(user_identity(trailing, true), Ok(Some(&b"Worker_001"[..])));
        assert_eq!(user_identity(trailing, false), Ok(None));
    }
}

#[test]
fn empty_and_missing_names() {
    assert_eq!(user_identity(b"", true), Ok(None));
    assert_eq!(user_identity(b"\x02\x00\x01\x00\x00", true), Ok(Some(&b""[..])));
    assert_eq!(user_identity(b"\x00\x02\x01\x00\x00", true), Ok(Some(&b""[..])));
    // Another field of the same extension.
    assert_eq!(user_identity(b"\x02\x00\x02\x01\x00x", true), Ok(None));
}

#[test]
fn a_negotiated_name_over_its_maximum_rejects_the_message() {
    for (head, len) in [([2, 0, 1, 33, 0], 33), ([0, 2, 1, 0, 33], 33), ([2, 0, 1, 0, 1], 256)] {
        let trailing = [&head[..], &vec![b'w'; len]].concat();
        let error = user_identity(&trailing, true).expect_err("over 32 bytes");
        assert_eq!(error.to_string(), format!("SubmitSharesExtended.user_identity: {len} bytes, at most 32"));
        // Ignored, whatever it holds, where it was not negotiated.
        assert_eq!(user_identity(&trailing, false), Ok(None));
    }
    let longest = [&[2, 0, 1, 32, 0][..], &[b'w'; 32]].concat();
    assert_eq!(user_identity(&longest, true), Ok(Some(&[b'w'; 32][..])));
    let error = encode_user_identity(&[b'w'; 33], &mut [0; 64]).expect_err("over 32 bytes");
    assert_eq!(error.kind, EncodeErrorKind::TooLong { len: 33, max: 32 });
}

#[test]
fn a_negotiated_field_that_is_cut_off_rejects_the_message() {
    for whole in [LITTLE, BIG] {
        for cut in 5..whole.len() {
            let error = user_identity(&whole[..cut], true).expect_err("cut off");
            assert_eq!(error.message, Some(MessageKind::SubmitSharesExtended));
            assert!(matches!(error.kind, DecodeErrorKind::Truncated { .. }));
        }
        for cut in 0..5 {
            assert_eq!(user_identity(&whole[..cut], true), Ok(None), "no field yet: ignored");
        }
    }
}

#[test]
fn fields_that_were_not_negotiated_are_stepped_over() {
    for unknown in [&b"\x05\x00\x01\x03\x00abc"[..], b"\x00\x05\x01\x00\x03abc", b"\x05\x00\x09\x00\x00"] {
        for known in [LITTLE, BIG] {
            let trailing = [unknown, known, b"rest"].concat();
            assert_eq!(user_identity(&trailing, true), Ok(Some(&b"Worker_001"[..])), "{unknown:?}");
        }
    }
    // No field at all, and one that claims more than is there.
    for garbage in [&b"\xff\xff\xff\xff\xff\xff\xff"[..], b"\x07\x00\x01\xff\xff", b"abc"] {
        assert_eq!(user_identity(garbage, true), Ok(None));
    }
}

/// An extension number that reads the same both ways leaves the order to the length.
#[test]
fn a_symmetric_extension_number() {
    for bytes in [&b"\x03\x03\x07\x02\x00ab"[..], b"\x03\x03\x07\x00\x02ab"] {
        let fields: Vec<_> = Tlvs::new(bytes, &[0x0303]).collect();
        assert_eq!(fields, [Ok(Tlv { extension_type: 0x0303, field_type: 7, value: b"ab" })]);
    }
}

#[test]
fn behind_a_share() {
    let shares = SubmitSharesExtended {
        channel_id: 1,
        sequence_number: 2,
        job_id: 3,
        nonce: 4,
        ntime: 5,
        version: 6,
        extranonce: &[7; 8],
    };
    let (mut frame, mut tlv) = ([0; 128], [0; 37]);
    let tlv_len = encode_user_identity(b"rig.7", &mut tlv).expect("fits");
    let len = encode_frame_with_trailing(&shares, &tlv[..tlv_len], &mut frame).expect("fits");
    let header = adit_codec::frame::FrameHeader::parse(frame[..6].try_into().expect("six bytes"));
    // The extension that adds the field does not show in the header (spec 3.4.1).
    assert_eq!((header.extension_type, header.frame_len()), (0, len));
    let decoded = Message::decode(header, &frame[6..len], Protocol::Mining).expect("our own");
    assert_eq!(decoded.message, shares.into());
    assert_eq!(user_identity(decoded.trailing, true), Ok(Some(&b"rig.7"[..])));
}

proptest! {
    #[test]
    fn fields_round_trip(
        fields in proptest::collection::vec((1_u16..6, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..50)), 0..6),
        negotiated in proptest::collection::vec(1_u16..6, 0..5),
    ) {
        let mut trailing = Vec::new();
        for (extension_type, field_type, value) in &fields {
            let tlv = Tlv { extension_type: *extension_type, field_type: *field_type, value };
            let mut out = vec![0; 5 + value.len()];
            prop_assert_eq!(encode_tlv(MessageKind::SetTarget, tlv, &mut out), Ok(out.len()));
            trailing.extend_from_slice(&out);
        }
        let expected: Vec<_> = fields.iter().filter(|(extension_type, ..)| negotiated.contains(extension_type)).collect();
        let read: Vec<_> = Tlvs::new(&trailing, &negotiated).map(|tlv| tlv.expect("whole")).collect();
        prop_assert_eq!(read.len(), expected.len());
        for (tlv, (extension_type, field_type, value)) in read.iter().zip(expected) {
            prop_assert_eq!((tlv.extension_type, tlv.field_type, tlv.value), (*extension_type, *field_type, &value[..]));
        }
    }

    #[test]
    fn any_bytes(trailing in proptest::collection::vec(any::<u8>(), 0..80)) {
        prop_assert_eq!(user_identity(&trailing, false), Ok(None));
        if let Ok(Some(name)) = user_identity(&trailing, true) {
            prop_assert!(name.len() <= 32);
        }
        prop_assert!(Tlvs::new(&trailing, &[1, 2, 3]).count() <= trailing.len() / 5);
    }
}
