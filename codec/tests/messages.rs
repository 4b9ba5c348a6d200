//! Every message of the table: round trips, truncation at every length, limits, and what is ignored.

mod generate;

use adit_codec::frame::FrameHeader;
use adit_codec::message::{
    AllocateMiningJobToken, CloseChannel, DeclareMiningJob, Message, MessageKind, NewExtendedMiningJob,
    NewMiningJob, OpenStandardMiningChannel, Protocol, ProvideMissingTransactionsSuccess, RequestExtensions,
    SetGroupChannel, SetupConnectionError, SubmitSharesError, SubmitSharesExtended, SubmitSharesStandard,
    SubmitSharesSuccess,
};
use adit_codec::seq::{Seq, SeqBytes};
use adit_codec::wire::WireType;
use adit_codec::{
    Decode, DecodeError, DecodeErrorKind, Encode, EncodeError, EncodeErrorKind, encode_frame,
    encode_frame_with_trailing, frame_len,
};
use proptest::prelude::*;

/// The protocol of a connection on which the message may come.
fn protocol_of(kind: MessageKind) -> Protocol {
    kind.protocol().unwrap_or(Protocol::Mining)
}

fn decode(kind: MessageKind, payload: &[u8]) -> Result<(Message<'_>, &[u8]), DecodeError> {
    let header = kind.header(payload.len() as u32);
    Message::decode(header, payload, protocol_of(kind)).map(|decoded| (decoded.message, decoded.trailing))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Bytes to message to bytes, and message to bytes to message.
    #[test]
    fn round_trips((kind, pieces) in generate::any_pieces(), trailing in proptest::collection::vec(any::<u8>(), 0..9)) {
        let mut payload = pieces.payload();
        let len = payload.len();
        payload.extend_from_slice(&trailing);

        let (message, rest) = decode(kind, &payload).expect("a correct peer's payload");
        prop_assert_eq!(message.kind(), kind);
        prop_assert_eq!(rest, &trailing[..]);
        prop_assert_eq!(message.encoded_len(), len);
        prop_assert!((kind.row().len_min..=kind.row().len_max).contains(&len));

        let mut frame = vec![0; 6 + len];
        prop_assert_eq!(message.encode_frame(&mut frame), Ok(6 + len));
        prop_assert_eq!(&frame[..6], &kind.header(len as u32).to_bytes()[..]);
        prop_assert_eq!(&frame[6..], &payload[..len]);

        let (again, rest) = decode(kind, &frame[6..]).expect("our own payload");
        prop_assert_eq!(again, message);
        prop_assert!(rest.is_empty());
    }

    /// A payload that ends anywhere in a message is an error in the field where it ends.
    #[test]
    fn truncation_names_the_field((kind, pieces) in generate::any_pieces()) {
        let payload = pieces.payload();
        let mut start = 0;
        for (piece, field) in pieces.0.iter().zip(kind.row().fields) {
            let end = start + piece.len();
            // Every length for what a frame usually holds, and the ends of long fields.
            let (head, tail) = (start..end.min(start + 300), end.saturating_sub(40).max(start)..end);
            for cut in head.chain(tail) {
                let error = decode(kind, &payload[..cut]).expect_err("cut off");
                prop_assert_eq!(error.message, Some(kind));
                prop_assert_eq!(error.field, field.name, "{} of {} bytes", cut, payload.len());
                let truncated = matches!(error.kind, DecodeErrorKind::Truncated { needed, left } if left < needed);
                prop_assert!(truncated, "{}", error);
            }
            start = end;
        }
    }

    /// Any bytes: an error that names a field of the message, or a message that gives the same bytes back.
    #[test]
    fn any_bytes(kind in proptest::sample::select(MessageKind::ALL), bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        match decode(kind, &bytes) {
            Err(error) => {
                prop_assert!(kind.row().fields.iter().any(|field| field.name == error.field));
                prop_assert!(error.to_string().starts_with(kind.name()));
            }
            Ok((message, trailing)) => {
                let len = bytes.len() - trailing.len();
                let mut out = vec![0; len];
                match message.encode_into(&mut out) {
                    Ok(written) => {
                        prop_assert_eq!(written, len);
                        let padded = kind.row().fields.iter().filter(|f| f.wire_type == WireType::Bool).count();
                        let differing = out.iter().zip(&bytes).filter(|(a, b)| a != b);
                        prop_assert!(differing.clone().count() <= padded);
                        prop_assert!(differing.clone().all(|(a, b)| *a <= 1 && a & 1 == b & 1));
                    }
                    Err(error) => {
                        let control = matches!(error.kind, EncodeErrorKind::ControlCharacter { .. });
                        prop_assert!(control, "{}", error);
                    }
                }
            }
        }
    }
}

/// The table against the specification's own list (spec 8 and extension 0x0001): number, channel bit, name.
#[test]
fn table_is_the_specifications() {
    const CORE: &str = "
        00 0 SetupConnection|01 0 SetupConnection.Success|02 0 SetupConnection.Error|03 1 ChannelEndpointChanged
        04 0 Reconnect|10 0 OpenStandardMiningChannel|11 0 OpenStandardMiningChannel.Success
        12 0 OpenMiningChannel.Error|13 0 OpenExtendedMiningChannel|14 0 OpenExtendedMiningChannel.Success
        15 1 NewMiningJob|16 1 UpdateChannel|17 1 UpdateChannel.Error|18 1 CloseChannel|19 1 SetExtranoncePrefix
        1a 1 SubmitSharesStandard|1b 1 SubmitSharesExtended|1c 1 SubmitShares.Success|1d 1 SubmitShares.Error
        1f 1 NewExtendedMiningJob|20 1 SetNewPrevHash|21 1 SetTarget|22 1 SetCustomMiningJob
        23 1 SetCustomMiningJob.Success|24 1 SetCustomMiningJob.Error|25 0 SetGroupChannel
        50 0 AllocateMiningJobToken|51 0 AllocateMiningJobToken.Success|55 0 ProvideMissingTransactions
        56 0 ProvideMissingTransactions.Success|57 0 DeclareMiningJob|58 0 DeclareMiningJob.Success
        59 0 DeclareMiningJob.Error|60 0 PushSolution|70 0 CoinbaseOutputConstraints|71 0 NewTemplate
        72 0 SetNewPrevHash|73 0 RequestTransactionData|74 0 RequestTransactionData.Success
        75 0 RequestTransactionData.Error|76 0 SubmitSolution";
    const EXTENSION_1: &str =
        "00 0 RequestExtensions|01 0 RequestExtensions.Success|02 0 RequestExtensions.Error";

    let mut expected = Vec::new();
    for (extension_type, list) in [(0, CORE), (1, EXTENSION_1)] {
        for entry in list.split(['|', '\n']).map(str::trim).filter(|entry| !entry.is_empty()) {
            let words: Vec<_> = entry.split(' ').collect();
            let msg_type = u8::from_str_radix(words[0], 16).expect("hexadecimal");
            expected.push((extension_type, msg_type, words[1] == "1", words[2]));
        }
    }
    let table: Vec<_> = MessageKind::ALL
        .iter()
        .map(|kind| kind.row())
        .map(|row| (row.extension_type, row.msg_type, row.channel_msg, row.name))
        .collect();
    assert_eq!(table, expected);
    for kind in MessageKind::ALL {
        let row = kind.row();
        assert_eq!(MessageKind::from_wire(row.extension_type, row.msg_type), Some(*kind));
        // Spec 3.2.1: only the Mining Protocol has channels, and a channel message begins with the channel's id.
        if row.channel_msg {
            assert_eq!(row.fields[0].name, "channel_id");
        }
    }
}

#[test]
fn errors_speak_plainly() {
    let mut payload = vec![0; 24];
    payload.push(33);
    payload.extend_from_slice(&[7; 33]);
    let error = decode(MessageKind::SubmitSharesExtended, &payload).expect_err("33 bytes");
    assert_eq!(error.to_string(), "SubmitSharesExtended.extranonce: 33 bytes, at most 32");

    let error = SubmitSharesStandard::decode(&[0; 10]).expect_err("10 of 24 bytes");
    assert_eq!(error.to_string(), "SubmitSharesStandard.job_id: 4 bytes needed, 2 left");

    let header = FrameHeader { extension_type: 0, channel_msg: true, msg_type: 0x1e, payload_len: 0 };
    let error = Message::decode(header, &[], Protocol::Mining).expect_err("reserved number");
    assert_eq!(error.to_string(), "frame.msg_type: no message 0x1e in extension 0x0000");
    assert!(!error.is_ignorable());

    let error = Message::decode(MessageKind::DeclareMiningJob.header(0), &[], Protocol::Mining)
        .expect_err("protocol");
    assert_eq!(
        error.to_string(),
        "DeclareMiningJob.msg_type: not a message of the Mining protocol, which this connection speaks"
    );

    let error = SubmitSharesError { channel_id: 1, sequence_number: 2, error_code: b"stale\nshare" }
        .encode_into(&mut [0; 64])
        .expect_err("line feed");
    assert_eq!(error.to_string(), "SubmitShares.Error.error_code: control character at byte 5");
}

/// Spec 3.4.1: frames of unknown extensions are dropped and ignored, on any connection.
#[test]
fn unknown_extensions_are_ignorable() {
    for (extension_type, msg_type) in [(0x0002, 0), (0x4242, 0x1b), (0x7fff, 0xff)] {
        for channel_msg in [false, true] {
            let header = FrameHeader { extension_type, channel_msg, msg_type, payload_len: 4 };
            let error =
                Message::decode(header, &[1, 2, 3, 4], Protocol::JobDeclaration).expect_err("unknown");
            assert!(error.is_ignorable());
            assert_eq!(error.message, None);
        }
    }
}

#[test]
fn a_wrong_channel_bit_is_forgiven() {
    let shares =
        SubmitSharesStandard { channel_id: 1, sequence_number: 2, job_id: 3, nonce: 4, ntime: 5, version: 6 };
    let mut frame = [0; 30];
    encode_frame(&shares, &mut frame).expect("fits");
    assert_eq!(frame[..2], [0, 0x80]);
    let mut header = FrameHeader::parse(frame[..6].try_into().expect("six bytes"));
    header.channel_msg = false;
    let decoded = Message::decode(header, &frame[6..], Protocol::Mining).expect("the bit is not looked at");
    assert_eq!(decoded.message, Message::SubmitSharesStandard(shares));
}

#[test]
fn common_and_extension_messages_belong_to_every_protocol() {
    for kind in MessageKind::ALL.iter().filter(|kind| kind.protocol().is_none()) {
        let payload = vec![0; kind.row().len_min];
        for protocol in [Protocol::Mining, Protocol::JobDeclaration, Protocol::TemplateDistribution] {
            Message::decode(kind.header(0), &payload, protocol)
                .expect("zeroes are every message at its shortest");
        }
    }
}

/// Spec 3.1: of a BOOL only the lowest bit is read, and zeroes are sent beside it.
#[test]
fn bool_padding_means_nothing() {
    let job = NewExtendedMiningJob {
        channel_id: 1,
        job_id: 2,
        min_ntime: Some(3),
        version: 4,
        version_rolling_allowed: true,
        merkle_path: Seq::EMPTY,
        coinbase_tx_prefix: b"prefix",
        coinbase_tx_suffix: b"suffix",
    };
    let mut clean = [0; 64];
    let len = job.encode_into(&mut clean).expect("fits");
    let at = 4 + 4 + 5 + 4;
    assert_eq!(clean[at], 1);
    for padding in 0..=255_u8 {
        let mut padded = clean;
        padded[at] = padding;
        let (decoded, _) = NewExtendedMiningJob::decode(&padded[..len]).expect("padding");
        assert_eq!(decoded.version_rolling_allowed, padding & 1 == 1);
    }
}

#[test]
fn option_holds_one_item_at_most() {
    let job =
        NewMiningJob { channel_id: 1, job_id: 2, min_ntime: Some(3), version: 4, merkle_root: &[5; 32] };
    let mut payload = [0; 49];
    assert_eq!(job.encode_into(&mut payload), Ok(49));
    payload[8] = 2;
    let error = NewMiningJob::decode(&payload).expect_err("two items");
    assert_eq!((error.field, error.kind), ("min_ntime", DecodeErrorKind::TooMany { count: 2, max: 1 }));
}

#[test]
fn hash_rates_keep_their_bits() {
    for bits in [0x7fc0_0001_u32, 0xff80_0000, 0x8000_0000, 1] {
        let open = OpenStandardMiningChannel {
            request_id: 1,
            user_identity: b"worker",
            nominal_hash_rate: f32::from_bits(bits),
            max_target: &[0xff; 32],
        };
        let mut payload = [0; 64];
        let len = open.encode_into(&mut payload).expect("fits");
        let (decoded, _) = OpenStandardMiningChannel::decode(&payload[..len]).expect("any bits");
        assert_eq!(decoded.nominal_hash_rate.to_bits(), bits);
    }
}

/// What is sent from slices of our own is what the views over a frame give back.
#[test]
fn sequences_from_memory_equal_sequences_from_the_wire() {
    let path = [[1; 32], [2; 32], [3; 32]];
    let declare = DeclareMiningJob {
        request_id: 1,
        mining_job_token: b"token",
        version: 2,
        coinbase_tx_prefix: b"prefix",
        coinbase_tx_suffix: b"",
        wtxid_list: Seq::from(&path[..]),
        excess_data: b"",
    };
    let mut out = vec![0; declare.encoded_len()];
    declare.encode_into(&mut out).expect("fits");
    let (decoded, _) = DeclareMiningJob::decode(&out).expect("our own");
    assert_eq!(decoded, declare);
    assert_eq!(decoded.wtxid_list.as_slice(), path);
    assert!(out.as_ptr_range().contains(&decoded.wtxid_list.as_slice().as_ptr().cast()), "a view, no copy");

    let ids = [7, 0xffff_ffff, 0];
    let group = SetGroupChannel { group_channel_id: 9, channel_ids: Seq::from(&ids[..]) };
    let mut out = vec![0; group.encoded_len()];
    group.encode_into(&mut out).expect("fits");
    let (decoded, _) = SetGroupChannel::decode(&out).expect("our own");
    assert_eq!(decoded, group);
    assert_eq!(decoded.channel_ids.iter().collect::<Vec<_>>(), ids);
    assert_eq!(decoded.channel_ids.iter().len(), 3);
    assert_eq!((decoded.channel_ids.get(1), decoded.channel_ids.get(3)), (Some(0xffff_ffff), None));
    assert_eq!(decoded.channel_ids.get(usize::MAX), None);

    let transactions: [&[u8]; 3] = [b"one", b"", b"three"];
    let provide = ProvideMissingTransactionsSuccess {
        request_id: 1,
        transaction_list: SeqBytes::from(&transactions[..]),
    };
    let mut out = vec![0; provide.encoded_len()];
    provide.encode_into(&mut out).expect("fits");
    let (decoded, _) = ProvideMissingTransactionsSuccess::decode(&out).expect("our own");
    assert_eq!(decoded, provide);
    assert_eq!(decoded.transaction_list.iter().collect::<Vec<_>>(), transactions);
    let mut again = vec![0; out.len()];
    decoded.encode_into(&mut again).expect("fits");
    assert_eq!(again, out);
}

/// A stated count or length is never believed: what is not there in bytes is an error, at once.
#[test]
fn stated_sizes_are_not_believed() {
    let payload = [1, 0, 0, 0, 0xff, 0xff];
    for kind in [MessageKind::ProvideMissingTransactions, MessageKind::ProvideMissingTransactionsSuccess] {
        let error = decode(kind, &payload).expect_err("65,535 items, none there");
        assert!(matches!(error.kind, DecodeErrorKind::Truncated { left: 0, .. }));
    }
    let error =
        ProvideMissingTransactionsSuccess::decode(&[1, 0, 0, 0, 1, 0, 0xff, 0xff, 0xff]).expect_err("16 MB");
    assert_eq!(error.kind, DecodeErrorKind::Truncated { needed: (1 << 24) - 1, left: 0 });
}

/// Every type's maximum holds on sending.
#[test]
fn too_long_fields_are_not_sent() {
    let mut out = vec![0; 1 << 18];
    let mut field = |message: Message<'_>| match message.encode_into(&mut out) {
        Err(EncodeError { field, kind: EncodeErrorKind::TooLong { len, max }, .. }) => (field, len, max),
        other => panic!("{other:?}"),
    };
    let extranonce = [0; 33];
    let shares = SubmitSharesExtended {
        channel_id: 0,
        sequence_number: 0,
        job_id: 0,
        nonce: 0,
        ntime: 0,
        version: 0,
        extranonce: &extranonce,
    };
    assert_eq!(field(shares.into()), ("extranonce", 33, 32));

    let name = [b'x'; 256];
    let token = AllocateMiningJobToken { user_identifier: &name, request_id: 0 };
    assert_eq!(field(token.into()), ("user_identifier", 256, 255));
    let close = CloseChannel { channel_id: 0, reason_code: &name };
    assert_eq!(field(close.into()), ("reason_code", 256, 255));

    let (path, coinbase) = ([[0; 32]; 256], [0; 65_536]);
    let job = NewExtendedMiningJob {
        channel_id: 1,
        job_id: 2,
        min_ntime: None,
        version: 4,
        version_rolling_allowed: true,
        merkle_path: Seq::from(&path[..]),
        coinbase_tx_prefix: b"",
        coinbase_tx_suffix: b"",
    };
    assert_eq!(field(job.into()), ("merkle_path", 256, 255));
    let job = NewExtendedMiningJob { merkle_path: Seq::EMPTY, coinbase_tx_suffix: &coinbase, ..job };
    assert_eq!(field(job.into()), ("coinbase_tx_suffix", 65_536, 65_535));

    let extensions = [0; 65_536];
    let request = RequestExtensions { request_id: 0, requested_extensions: Seq::from(&extensions[..]) };
    assert_eq!(field(request.into()), ("requested_extensions", 65_536, 65_535));
}

#[test]
fn a_payload_over_u24_is_not_sent() {
    let transaction = vec![0; (1 << 24) - 1];
    let list: [&[u8]; 1] = [&transaction];
    let provide =
        ProvideMissingTransactionsSuccess { request_id: 1, transaction_list: SeqBytes::from(&list[..]) };
    let mut out = vec![0; frame_len(&provide)];
    let error = encode_frame(&provide, &mut out).expect_err("the frame's length has 24 bits");
    assert_eq!(
        (error.field, error.kind),
        ("msg_length", EncodeErrorKind::TooLong { len: (1 << 24) + 8, max: (1 << 24) - 1 })
    );

    // The longest that fits: four bytes of request_id, two of count, three of length.
    let list: [&[u8]; 1] = [&transaction[9..]];
    let provide =
        ProvideMissingTransactionsSuccess { request_id: 1, transaction_list: SeqBytes::from(&list[..]) };
    assert_eq!(encode_frame(&provide, &mut out), Ok(6 + (1 << 24) - 1));
    assert_eq!(out[..6], [0, 0, 0x56, 0xff, 0xff, 0xff]);
}

#[test]
fn small_outputs_are_refused() {
    let success = SubmitSharesSuccess {
        channel_id: 1,
        last_sequence_number: 2,
        new_submits_accepted_count: 3,
        new_shares_sum: 4,
    };
    assert_eq!(frame_len(&success), 26);
    for have in 0..26 {
        let error = encode_frame(&success, &mut vec![0; have]).expect_err("too small");
        assert_eq!(error.kind, EncodeErrorKind::BufferTooSmall { needed: 26, have });
    }
    assert_eq!(encode_frame(&success, &mut [0; 40]), Ok(26));
    for have in 0..20 {
        assert!(success.encode_into(&mut vec![0; have]).is_err());
    }
}

#[test]
fn trailing_bytes_are_counted_by_the_header() {
    let error = SetupConnectionError { flags: 1, error_code: b"unsupported-protocol" };
    let mut out = [0; 64];
    let len = encode_frame_with_trailing(&error, b"tail", &mut out).expect("fits");
    assert_eq!(len, 6 + 4 + 21 + 4);
    assert_eq!(out[3], 29);
    assert_eq!(&out[len - 4..len], b"tail");
    assert!(encode_frame_with_trailing(&error, b"tail", &mut [0; 34]).is_err());
}

#[test]
fn control_characters_are_not_sent() {
    let mut out = [0; 64];
    let mut send = |error_code: &[u8]| SetupConnectionError { flags: 0, error_code }.encode_into(&mut out);
    for good in ["", "stale-share", "ungültig", "£", "\u{a0}"] {
        assert!(send(good.as_bytes()).is_ok(), "{good:?}");
    }
    for (bad, at) in
        [("\0", 0), ("a\u{1b}[0m", 1), ("ab\u{7f}", 2), ("\u{80}", 0), ("é\u{9f}", 2), ("x\r\n", 1)]
    {
        let error = send(bad.as_bytes()).expect_err(bad);
        assert_eq!(error.kind, EncodeErrorKind::ControlCharacter { at }, "{bad:?}");
    }
}
