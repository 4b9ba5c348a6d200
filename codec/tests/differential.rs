//! Against the Stratum Reference Implementation's crates, for every message and in both directions: what we encode
//! they read as equal fields and write as the same bytes, and what they write we read and write as the same bytes.

mod generate;

use adit_codec::Encode;
use adit_codec::encode_frame_with_trailing;
use adit_codec::frame::{Deframer, PAYLOAD_LEN_MAX};
use adit_codec::message::{self, Message, MessageKind, Protocol, SubmitSharesExtended};
use adit_codec::seq::{Seq, SeqBytes, SeqItem};
use adit_codec::tlv::{Tlv, Tlvs, encode_tlv, encode_user_identity, user_identity};
use binary_sv2::{B016M, B032, B064K, B0255, Seq064K, Seq0255, Sv2Option, U256};
use codec_sv2::{Decoded, Decoder, Encoder, MessageFrame, SerializedFrame};
use parsers_sv2::{
    AnyMessage, CommonMessages, Extensions, ExtensionsNegotiation, IsSv2Message, JobDeclaration, Mining,
    TemplateDistribution, TlvList,
};
use proptest::prelude::*;

/// A value of ours equals one of theirs.
trait Same<Theirs> {
    fn same(&self, theirs: &Theirs) -> bool;
}

macro_rules! same_number {
    ($($number:ty)*) => {$(
        impl Same<$number> for $number {
            fn same(&self, theirs: &$number) -> bool {
                self == theirs
            }
        }
    )*};
}
same_number!(u16 u32 u64 bool);

impl Same<f32> for f32 {
    fn same(&self, theirs: &f32) -> bool {
        self.to_bits() == theirs.to_bits()
    }
}

impl Same<U256<'_>> for &[u8; 32] {
    fn same(&self, theirs: &U256<'_>) -> bool {
        self[..] == *theirs.as_bytes()
    }
}

macro_rules! same_bytes {
    ($($theirs:ident)*) => {$(
        impl Same<$theirs<'_>> for &[u8] {
            fn same(&self, theirs: &$theirs<'_>) -> bool {
                *self == theirs.as_bytes()
            }
        }
    )*};
}
// Their STR0_255 is the same type as their B0_255.
same_bytes!(B032 B0255 B064K B016M);

impl Same<Sv2Option<'_, u32>> for Option<u32> {
    fn same(&self, theirs: &Sv2Option<'_, u32>) -> bool {
        self.as_ref() == theirs.as_ref()
    }
}

impl Same<Seq0255<'_, U256<'_>>> for Seq<'_, [u8; 32]> {
    fn same(&self, theirs: &Seq0255<'_, U256<'_>>) -> bool {
        self.iter().eq(theirs.iter().map(|item| *item.as_array()))
    }
}

impl Same<Seq064K<'_, U256<'_>>> for Seq<'_, [u8; 32]> {
    fn same(&self, theirs: &Seq064K<'_, U256<'_>>) -> bool {
        self.iter().eq(theirs.iter().map(|item| *item.as_array()))
    }
}

impl<T: SeqItem> Same<Seq064K<'_, T>> for Seq<'_, T> {
    fn same(&self, theirs: &Seq064K<'_, T>) -> bool {
        self.iter().eq(theirs.iter().copied())
    }
}

impl Same<Seq064K<'_, B016M<'_>>> for SeqBytes<'_> {
    fn same(&self, theirs: &Seq064K<'_, B016M<'_>>) -> bool {
        self.iter().eq(theirs.iter().map(|item| item.as_bytes()))
    }
}

/// Compares all fields of ours: leaving one out does not compile. `ours = theirs` where the names differ.
macro_rules! same_fields {
    ($kind:ident $ours:ident $theirs:ident { $($field:ident $(= $their_field:ident)?,)* }) => {{
        let message::$kind { $($field),* } = $ours;
        same_fields!(@each $theirs { $($field $(= $their_field)?,)* });
    }};
    (@each $theirs:ident { $($field:ident $(= $their_field:ident)?,)* }) => {
        $( assert!($field.same(&same_fields!(@their $theirs $field $($their_field)?)), "{}", stringify!($field)); )*
    };
    (@their $theirs:ident $field:ident) => { $theirs.$field };
    (@their $theirs:ident $field:ident $their_field:ident) => { $theirs.$their_field };
}

/// Compares messages by the rows below.
macro_rules! same_messages {
    ($ours:expr, $theirs:expr; $( $group:ident $inner:ident $kind:ident $(($their_kind:ident))? { $($fields:tt)* } )*) => {
        match ($ours, $theirs) {
            (Message::SetupConnection(ours), AnyMessage::Common(CommonMessages::SetupConnection(theirs))) => {
                let message::SetupConnection {
                    protocol, min_version, max_version, flags, endpoint_host, endpoint_port, vendor,
                    hardware_version, firmware, device_id,
                } = ours;
                assert_eq!(*protocol, theirs.protocol as u8);
                same_fields!(@each theirs {
                    min_version, max_version, flags, endpoint_host, endpoint_port, vendor, hardware_version, firmware,
                    device_id,
                });
            }
            $( (Message::$kind(ours), AnyMessage::$group(same_messages!(@pattern $group $inner $kind theirs $($their_kind)?))) => {
                same_fields!($kind ours theirs { $($fields)* });
            } )*
            (ours, theirs) => panic!("{:?} became {theirs:?}", ours.kind()),
        }
    };
    (@pattern Extensions $inner:ident $kind:ident $theirs:ident) => {
        Extensions::ExtensionsNegotiation($inner::$kind($theirs))
    };
    (@pattern $group:ident $inner:ident $kind:ident $theirs:ident) => { $inner::$kind($theirs) };
    (@pattern $group:ident $inner:ident $kind:ident $theirs:ident $their_kind:ident) => { $inner::$their_kind($theirs) };
}

fn assert_same(ours: &Message<'_>, theirs: &AnyMessage<'_>) {
    same_messages! { ours, theirs;
        Common CommonMessages SetupConnectionSuccess { used_version, flags, }
        Common CommonMessages SetupConnectionError { flags, error_code, }
        Common CommonMessages ChannelEndpointChanged { channel_id, }
        Common CommonMessages Reconnect { new_host, new_port, }
        Mining Mining OpenStandardMiningChannel { request_id, user_identity, nominal_hash_rate, max_target, }
        Mining Mining OpenStandardMiningChannelSuccess {
            request_id, channel_id, target, extranonce_prefix, group_channel_id,
        }
        Mining Mining OpenMiningChannelError { request_id, error_code, }
        Mining Mining OpenExtendedMiningChannel {
            request_id, user_identity, nominal_hash_rate, max_target, min_extranonce_size,
        }
        Mining Mining OpenExtendedMiningChannelSuccess {
            request_id, channel_id, target, extranonce_size, extranonce_prefix, group_channel_id,
        }
        Mining Mining NewMiningJob { channel_id, job_id, min_ntime, version, merkle_root, }
        Mining Mining UpdateChannel { channel_id, nominal_hash_rate, maximum_target, }
        Mining Mining UpdateChannelError { channel_id, error_code, }
        Mining Mining CloseChannel { channel_id, reason_code, }
        Mining Mining SetExtranoncePrefix { channel_id, extranonce_prefix, }
        Mining Mining SubmitSharesStandard { channel_id, sequence_number, job_id, nonce, ntime, version, }
        Mining Mining SubmitSharesExtended { channel_id, sequence_number, job_id, nonce, ntime, version, extranonce, }
        Mining Mining SubmitSharesSuccess {
            channel_id, last_sequence_number, new_submits_accepted_count, new_shares_sum,
        }
        Mining Mining SubmitSharesError { channel_id, sequence_number, error_code, }
        Mining Mining NewExtendedMiningJob {
            channel_id, job_id, min_ntime, version, version_rolling_allowed, merkle_path, coinbase_tx_prefix,
            coinbase_tx_suffix,
        }
        Mining Mining SetNewPrevHash { channel_id, job_id, prev_hash, min_ntime, nbits, }
        Mining Mining SetTarget { channel_id, maximum_target, }
        Mining Mining SetCustomMiningJob {
            channel_id, request_id, mining_job_token = token, version, prev_hash, min_ntime, nbits,
            coinbase_tx_version, coinbase_prefix, coinbase_tx_input_n_sequence, coinbase_tx_outputs,
            coinbase_tx_locktime, merkle_path,
        }
        Mining Mining SetCustomMiningJobSuccess { channel_id, request_id, job_id, }
        Mining Mining SetCustomMiningJobError { channel_id, request_id, error_code, }
        Mining Mining SetGroupChannel { group_channel_id, channel_ids, }
        JobDeclaration JobDeclaration AllocateMiningJobToken { user_identifier, request_id, }
        JobDeclaration JobDeclaration AllocateMiningJobTokenSuccess {
            request_id, mining_job_token, coinbase_tx_outputs = coinbase_outputs,
        }
        JobDeclaration JobDeclaration ProvideMissingTransactions { request_id, unknown_tx_position_list, }
        JobDeclaration JobDeclaration ProvideMissingTransactionsSuccess { request_id, transaction_list, }
        JobDeclaration JobDeclaration DeclareMiningJob {
            request_id, mining_job_token, version, coinbase_tx_prefix, coinbase_tx_suffix, wtxid_list, excess_data,
        }
        JobDeclaration JobDeclaration DeclareMiningJobSuccess { request_id, new_mining_job_token, }
        JobDeclaration JobDeclaration DeclareMiningJobError { request_id, error_code, error_details, }
        JobDeclaration JobDeclaration PushSolution { extranonce, prev_hash, nonce, ntime, nbits, version, }
        TemplateDistribution TemplateDistribution CoinbaseOutputConstraints {
            coinbase_output_max_additional_size, coinbase_output_max_additional_sigops,
        }
        TemplateDistribution TemplateDistribution NewTemplate {
            template_id, future_template, version, coinbase_tx_version, coinbase_prefix, coinbase_tx_input_sequence,
            coinbase_tx_value_remaining, coinbase_tx_outputs_count, coinbase_tx_outputs, coinbase_tx_locktime,
            merkle_path,
        }
        TemplateDistribution TemplateDistribution TemplateSetNewPrevHash(SetNewPrevHash) {
            template_id, prev_hash, header_timestamp, n_bits, target,
        }
        TemplateDistribution TemplateDistribution RequestTransactionData { template_id, }
        TemplateDistribution TemplateDistribution RequestTransactionDataSuccess {
            template_id, excess_data, transaction_list,
        }
        TemplateDistribution TemplateDistribution RequestTransactionDataError { template_id, error_code, }
        TemplateDistribution TemplateDistribution SubmitSolution {
            template_id, version, header_timestamp, header_nonce, coinbase_tx,
        }
        Extensions ExtensionsNegotiation RequestExtensions { request_id, requested_extensions, }
        Extensions ExtensionsNegotiation RequestExtensionsSuccess { request_id, supported_extensions, }
        Extensions ExtensionsNegotiation RequestExtensionsError {
            request_id, unsupported_extensions, required_extensions,
        }
    }
}

/// Feeds a frame to their decoder as its buffer asks for it.
fn their_frame(bytes: &[u8]) -> SerializedFrame {
    let mut decoder = Decoder::new();
    let mut left = bytes;
    loop {
        let place = decoder.writable();
        let (taken, rest) = left.split_at(place.len());
        place.copy_from_slice(taken);
        left = rest;
        if let Decoded::Frame(frame) = decoder.next_frame().expect("a frame") {
            assert!(left.is_empty());
            return frame;
        }
    }
}

/// The frame of a message as they encode it.
fn their_bytes(message: AnyMessage<'_>) -> Vec<u8> {
    let (msg_type, extension_type, channel_bit) =
        (message.message_type(), message.extension_type(), message.channel_bit());
    let frame =
        MessageFrame::from_message(message, msg_type, extension_type, channel_bit).expect("fits a frame");
    Encoder::new().encode(frame).expect("encodes")
}

fn compare(kind: MessageKind, payload: &[u8]) {
    let protocol = kind.protocol().unwrap_or(Protocol::Mining);
    let header = kind.header(payload.len() as u32);
    let ours = Message::decode(header, payload, protocol).expect("a correct payload").message;
    let mut bytes = vec![0; 6 + ours.encoded_len()];
    ours.encode_frame(&mut bytes).expect("encodes");

    // Ours to theirs: equal fields, equal bytes, also the header's channel bit.
    let mut frame = their_frame(&bytes);
    let header = frame.header();
    let theirs = AnyMessage::try_from((header, frame.payload())).expect("they read it");
    assert_same(&ours, &theirs);
    let their_bytes = their_bytes(theirs);
    assert_eq!(their_bytes, bytes, "{kind}");

    // Theirs to ours.
    let mut deframer = Deframer::new(&their_bytes, PAYLOAD_LEN_MAX);
    let frame = deframer.next_frame().expect("sound").expect("whole");
    assert_eq!(deframer.consumed(), their_bytes.len());
    assert_eq!(frame.header, kind.header(payload.len() as u32));
    let decoded = Message::decode(frame.header, frame.payload, protocol).expect("we read it");
    assert_eq!(decoded.message, ours);
    assert!(decoded.trailing.is_empty());
    let mut again = vec![0; bytes.len()];
    decoded.message.encode_frame(&mut again).expect("encodes");
    assert_eq!(again, their_bytes);
}

/// Every message, many times each.
#[test]
fn every_message_both_ways() {
    for kind in MessageKind::ALL {
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(60));
        runner
            .run(&generate::pieces(*kind), |pieces| {
                compare(*kind, &pieces.payload());
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// Payloads with a byte changed or the end cut off: both sides accept them, with equal fields, or neither does.
    #[test]
    fn damaged_payloads_are_judged_alike(
        (kind, pieces) in generate::any_pieces().prop_filter("small", |(_, pieces)| pieces.payload().len() < 3_000),
        at in any::<proptest::sample::Index>(),
        value in any::<u8>(),
        cut in any::<Option<proptest::sample::Index>>(),
    ) {
        let mut payload = pieces.payload();
        let at = at.index(payload.len());
        // The protocol's number is theirs to judge while parsing, ours later; BOOL's padding has no meaning.
        let judged_later = kind == MessageKind::SetupConnection && at == 0;
        if !judged_later {
            payload[at] = value;
        }
        if let Some(cut) = cut {
            payload.truncate(cut.index(payload.len()));
        }
        let protocol = kind.protocol().unwrap_or(Protocol::Mining);
        let header = kind.header(payload.len() as u32);
        let ours = Message::decode(header, &payload, protocol);
        let mut copy = payload.clone();
        let theirs = parse_theirs(header.extension_type, header.msg_type, &mut copy);
        match (&ours, &theirs) {
            (Ok(ours), Some(theirs)) => assert_same(&ours.message, theirs),
            (Err(_), None) => {}
            (ours, theirs) => prop_assert!(false, "{kind}: ours {ours:?}, theirs {theirs:?}"),
        }
    }
}

/// Their parse of a payload.
fn parse_theirs(extension_type: u16, msg_type: u8, payload: &mut [u8]) -> Option<AnyMessage<'_>> {
    if extension_type != 0 {
        return Extensions::try_from((extension_type, msg_type, payload)).ok().map(AnyMessage::Extensions);
    }
    match msg_type {
        0x00..0x10 => CommonMessages::try_from((msg_type, payload)).ok().map(AnyMessage::Common),
        0x10..0x50 => Mining::try_from((msg_type, payload)).ok().map(AnyMessage::Mining),
        0x50..0x70 => JobDeclaration::try_from((msg_type, payload)).ok().map(AnyMessage::JobDeclaration),
        _ => TemplateDistribution::try_from((msg_type, payload)).ok().map(AnyMessage::TemplateDistribution),
    }
}

proptest! {
    /// Fields behind messages, ours to theirs and back.
    #[test]
    fn tlv_fields_both_ways(
        extension_type in 1_u16..0x4000,
        field_type in any::<u8>(),
        value in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let tlv = Tlv { extension_type, field_type, value: &value };
        let mut ours = vec![0; 5 + value.len()];
        encode_tlv(MessageKind::SubmitSharesExtended, tlv, &mut ours).expect("fits");
        let theirs = parsers_sv2::Tlv::decode(&ours).expect("they read it");
        prop_assert_eq!(theirs.r#type.extension_type, extension_type);
        prop_assert_eq!(theirs.r#type.field_type, field_type);
        prop_assert_eq!(&theirs.value, &value);
        prop_assert_eq!(theirs.encode().expect("encodes"), &ours[..]);
        let read: Vec<_> = Tlvs::new(&ours, &[extension_type]).collect();
        prop_assert_eq!(read, vec![Ok(tlv)]);
    }
}

/// A share with a worker's name, as they frame it.
#[test]
fn a_share_with_a_name_both_ways() {
    let shares = SubmitSharesExtended {
        channel_id: 1,
        sequence_number: 2,
        job_id: 3,
        nonce: 4,
        ntime: 5,
        version: 6,
        extranonce: &[7; 8],
    };
    let (mut ours, mut name) = ([0; 128], [0; 37]);
    let name_len = encode_user_identity(b"Worker_001", &mut name).expect("fits");
    let len = encode_frame_with_trailing(&shares, &name[..name_len], &mut ours).expect("fits");
    let ours = &ours[..len];

    let mut payload = ours[6..].to_vec();
    let theirs = Mining::try_from((0x1b, &mut payload[..])).expect("they read it");
    let tlvs = TlvList::from_bytes(&ours[6 + shares.encoded_len()..]);
    assert_eq!(tlvs.find(2, 1).expect("they find it").value, b"Worker_001");
    let list = TlvList::from_slice(&[parsers_sv2::Tlv::new(2, 1, b"Worker_001".to_vec())]).expect("a list");
    let theirs = list.build_frame_bytes_with_tlvs(theirs).expect("a frame");
    assert_eq!(theirs, ours);

    let decoded =
        Message::decode(MessageKind::SubmitSharesExtended.header(0), &theirs[6..], Protocol::Mining)
            .expect("we read it");
    assert_eq!(user_identity(decoded.trailing, true), Ok(Some(&b"Worker_001"[..])));
}
