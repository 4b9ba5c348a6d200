//! Payloads of every message, made field by field from the table: what a correct peer could send.

use adit_codec::message::MessageKind;
use adit_codec::wire::WireType;
use proptest::collection::vec;
use proptest::prelude::*;

/// A payload in pieces, one for each field.
#[derive(Clone, Debug)]
pub(crate) struct Pieces(pub(crate) Vec<Vec<u8>>);

impl Pieces {
    /// The payload.
    pub(crate) fn payload(&self) -> Vec<u8> {
        self.0.concat()
    }
}

/// Payloads of a message.
pub(crate) fn pieces(kind: MessageKind) -> impl Strategy<Value = Pieces> {
    let row = kind.row();
    row.fields
        .iter()
        .map(|field| match (row.name, field.name) {
            // Peers refuse numbers that are no protocol already when they parse.
            ("SetupConnection", "protocol") => (0_u8..3).prop_map(|protocol| vec![protocol]).boxed(),
            _ => field_bytes(field.wire_type),
        })
        .collect::<Vec<_>>()
        .prop_map(Pieces)
}

/// Any message with its payload.
#[allow(dead_code, reason = "some tests go through the messages one by one")]
pub(crate) fn any_pieces() -> impl Strategy<Value = (MessageKind, Pieces)> {
    proptest::sample::select(MessageKind::ALL).prop_flat_map(|kind| pieces(kind).prop_map(move |p| (kind, p)))
}

fn field_bytes(wire_type: WireType) -> BoxedStrategy<Vec<u8>> {
    match wire_type {
        WireType::Bool => (0_u8..2).prop_map(|bit| vec![bit]).boxed(),
        WireType::U8 => vec(any::<u8>(), 1).boxed(),
        WireType::U16 => vec(any::<u8>(), 2).boxed(),
        WireType::U32 => vec(any::<u8>(), 4).boxed(),
        WireType::U64 => vec(any::<u8>(), 8).boxed(),
        // Comparing needs a value that equals itself; bits that are no number are tested by name.
        WireType::F32 => any::<f32>().prop_filter("number", |f| !f.is_nan()).prop_map(le_f32).boxed(),
        WireType::U256 => vec(any::<u8>(), 32).boxed(),
        WireType::Str0_255 | WireType::B0_255 => prefixed(1, len(255), any::<u8>().boxed()),
        WireType::ErrorCode => prefixed(1, len(255), (b' '..=b'~').boxed()),
        WireType::B0_32 => prefixed(1, len(32), any::<u8>().boxed()),
        WireType::B0_64K => prefixed(2, len(65_535), any::<u8>().boxed()),
        WireType::OptionU32 => any::<Option<u32>>()
            .prop_map(|option| match option {
                None => vec![0],
                Some(number) => [&[1][..], &number.to_le_bytes()].concat(),
            })
            .boxed(),
        WireType::Seq0_255U256 => items(1, len(255), 32),
        WireType::Seq0_64KU256 => items(2, len(3_000), 32),
        WireType::Seq0_64KU16 => items(2, len(65_535), 2),
        WireType::Seq0_64KU32 => items(2, len(65_535), 4),
        WireType::Seq0_64KB0_16M => vec(prefixed(3, len(70_000), any::<u8>().boxed()), 0..6)
            .prop_map(|items| [&counted(2, items.len())[..], &items.concat()].concat())
            .boxed(),
    }
}

fn le_f32(number: f32) -> Vec<u8> {
    number.to_le_bytes().to_vec()
}

/// Mostly short lengths; the limits now and then.
fn len(max: usize) -> BoxedStrategy<usize> {
    prop_oneof![40 => 0..=max.min(40), 8 => 0..=max.min(400), 1 => Just(max - 1), 1 => Just(max)].boxed()
}

fn counted(prefix: usize, count: usize) -> Vec<u8> {
    count.to_le_bytes()[..prefix].to_vec()
}

/// Bytes behind their length. Long ones repeat a short piece, to keep generating cheap.
fn prefixed(prefix: usize, len: BoxedStrategy<usize>, byte: BoxedStrategy<u8>) -> BoxedStrategy<Vec<u8>> {
    (len, vec(byte, 48))
        .prop_map(move |(len, piece)| {
            let bytes: Vec<u8> = piece.iter().copied().cycle().take(len).collect();
            [counted(prefix, len), bytes].concat()
        })
        .boxed()
}

/// Items of a fixed size behind their count.
fn items(prefix: usize, count: BoxedStrategy<usize>, size: usize) -> BoxedStrategy<Vec<u8>> {
    (count, vec(any::<u8>(), 61))
        .prop_map(move |(count, piece)| {
            let bytes: Vec<u8> = piece.iter().copied().cycle().take(count * size).collect();
            [counted(prefix, count), bytes].concat()
        })
        .boxed()
}
