//! The bytes of a journal entry.
//!
//! An entry is one file: a record, and after it, once it is known, the outcome. Numbers are little-endian.
//! ```text
//! record   "ADITJRN1"  body length (4)  body  double-SHA256 of all before (32)
//! body     recorded_us (8)  template_id (8)  header (80)  target (32)  user_identity (2 + n)  worker_identity (2 + n)
//!          coinbase_tx (4 + n)  merkle_path (1 + 32 n)  block (4 + n; none: n = 0)
//! outcome  "OUTC"  length (2)  text  double-SHA256 of the record's checksum and all before (32)
//! ```
//! Whatever a crash or a disk does to such a file, it decodes to what was written or to an error.

use std::fmt;

use adit_hasher::{Digest, Target};
use adit_proto::mining::server::Solution;

const RECORD_MAGIC: [u8; 8] = *b"ADITJRN1";
const OUTCOME_MAGIC: [u8; 4] = *b"OUTC";
const CHECKSUM_LEN: usize = 32;
/// Bytes of the largest entry that is written or read: a block of four million with all that goes with it, and a margin.
pub(super) const ENTRY_LEN_MAX: u64 = 16 << 20;
/// Bytes of the longest outcome; longer ones are cut.
const OUTCOME_LEN_MAX: usize = 1_024;
const _: () = assert!(OUTCOME_LEN_MAX <= u16::MAX as usize);

/// A solution in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// When it was handed to the journal, in microseconds since 1970.
    pub recorded_us: u64,
    /// The solution as it was found.
    pub solution: Solution,
    /// The whole serialised block, where the template's transactions were at hand.
    pub block: Option<Vec<u8>>,
}

/// Why a file is no entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryError {
    /// It ends before its record does.
    Torn,
    /// It does not begin like an entry.
    NoEntry,
    /// The checksum does not fit.
    Checksum,
    /// The checksum fits, but this field does not: written by another version.
    Field(&'static str),
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Torn => f.write_str("torn: the file ends before its record"),
            Self::NoEntry => f.write_str("the file does not begin like a journal entry"),
            Self::Checksum => f.write_str("the checksum does not fit the record"),
            Self::Field(field) => write!(f, "{field} does not decode: written by another version?"),
        }
    }
}

impl std::error::Error for EntryError {}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    pub(super) entry: JournalEntry,
    pub(super) outcome: Option<String>,
    /// Where the outcome belongs, and the checksum that it continues.
    pub(super) record: RecordEnd,
}

/// Where a record ends and what it ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordEnd {
    pub(super) len: u64,
    pub(super) checksum: Digest,
}

/// The record's bytes.
pub(super) fn encode(entry: &JournalEntry) -> (Vec<u8>, RecordEnd) {
    let solution = &entry.solution;
    let block = entry.block.as_deref().unwrap_or_default();
    let mut out = Vec::with_capacity(block.len() + solution.coinbase_tx.len() + 1_024);
    out.extend_from_slice(&RECORD_MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&entry.recorded_us.to_le_bytes());
    out.extend_from_slice(&solution.template_id.to_le_bytes());
    out.extend_from_slice(&solution.header);
    out.extend_from_slice(solution.target.as_le_bytes());
    for identity in [&solution.user_identity, &solution.worker_identity] {
        // The protocol's strings have at most 255 bytes.
        let len = identity.len().min(usize::from(u16::MAX));
        out.extend_from_slice(&(len as u16).to_le_bytes());
        out.extend_from_slice(&identity[..len]);
    }
    put_long(&mut out, &solution.coinbase_tx);
    // A path is as long as its tree is deep: a block's has 32 levels at most.
    let path = &solution.merkle_path[..solution.merkle_path.len().min(usize::from(u8::MAX))];
    out.push(path.len() as u8);
    out.extend_from_slice(path.as_flattened());
    put_long(&mut out, block);
    let body_len = (out.len() - RECORD_MAGIC.len() - 4) as u32;
    out[8..12].copy_from_slice(&body_len.to_le_bytes());
    let checksum = Digest::of(&out);
    out.extend_from_slice(&checksum.0);
    let len = out.len() as u64;
    (out, RecordEnd { len, checksum })
}

fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The outcome's bytes, for the end of the record.
pub(super) fn encode_outcome(record: &RecordEnd, outcome: &str) -> Vec<u8> {
    let mut len = outcome.len().min(OUTCOME_LEN_MAX);
    while !outcome.is_char_boundary(len) {
        len -= 1;
    }
    let outcome = &outcome[..len];
    let mut out = OUTCOME_MAGIC.to_vec();
    out.extend_from_slice(&(outcome.len() as u16).to_le_bytes());
    out.extend_from_slice(outcome.as_bytes());
    let checksum = outcome_checksum(record, &out);
    out.extend_from_slice(&checksum.0);
    out
}

fn outcome_checksum(record: &RecordEnd, outcome: &[u8]) -> Digest {
    let mut preimage = record.checksum.0.to_vec();
    preimage.extend_from_slice(outcome);
    Digest::of(&preimage)
}

/// Reads a file. An outcome that is torn or corrupt counts as none: the solution is then offered again, which harms
/// nothing.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, EntryError> {
    let (magic, _) = bytes.split_first_chunk().ok_or(EntryError::Torn)?;
    if *magic != RECORD_MAGIC {
        return Err(EntryError::NoEntry);
    }
    let mut rest = Fields(&bytes[RECORD_MAGIC.len()..]);
    let body_len = rest.number("body length").map_err(|_| EntryError::Torn)?;
    let body = rest.take(body_len as usize, "body").map_err(|_| EntryError::Torn)?;
    let checksum = Digest(rest.array("checksum").map_err(|_| EntryError::Torn)?);
    let end = RECORD_MAGIC.len() + 4 + body.len();
    if Digest::of(&bytes[..end]) != checksum {
        return Err(EntryError::Checksum);
    }
    let record = RecordEnd { len: (end + CHECKSUM_LEN) as u64, checksum };
    let outcome = decode_outcome(&record, rest.0);
    Ok(Decoded { entry: decode_body(body)?, outcome, record })
}

fn decode_body(body: &[u8]) -> Result<JournalEntry, EntryError> {
    let mut fields = Fields(body);
    let recorded_us = u64::from_le_bytes(fields.array("recorded_us")?);
    let template_id = u64::from_le_bytes(fields.array("template_id")?);
    let header = fields.array("header")?;
    let target = Target::from_le_bytes(fields.array("target")?);
    let user_identity = fields.short("user_identity")?.to_vec();
    let worker_identity = fields.short("worker_identity")?.to_vec();
    let coinbase_tx = fields.long("coinbase_tx")?.to_vec();
    let [count] = fields.array("merkle_path")?;
    let path = fields.take(usize::from(count) * 32, "merkle_path")?;
    let merkle_path = path.as_chunks().0.to_vec();
    let block = fields.long("block")?;
    if !fields.0.is_empty() {
        return Err(EntryError::Field("the end"));
    }
    let digest = Digest::of(&header);
    let solution = Solution {
        template_id,
        header,
        digest,
        target,
        coinbase_tx,
        merkle_path,
        user_identity,
        worker_identity,
    };
    Ok(JournalEntry { recorded_us, solution, block: (!block.is_empty()).then(|| block.to_vec()) })
}

fn decode_outcome(record: &RecordEnd, bytes: &[u8]) -> Option<String> {
    let mut fields = Fields(bytes);
    let magic: [u8; 4] = fields.array("outcome").ok()?;
    let text = fields.short("outcome").ok()?;
    let checksum = Digest(fields.array("outcome").ok()?);
    let covered = &bytes[..OUTCOME_MAGIC.len() + 2 + text.len()];
    let good = magic == OUTCOME_MAGIC && outcome_checksum(record, covered) == checksum;
    good.then(|| String::from_utf8_lossy(text).into_owned())
}

/// The bytes that are still to be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], EntryError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(EntryError::Field(field))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], EntryError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(EntryError::Field(field))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn number(&mut self, field: &'static str) -> Result<u32, EntryError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    fn short(&mut self, field: &'static str) -> Result<&'a [u8], EntryError> {
        let len = u16::from_le_bytes(self.array(field)?);
        self.take(usize::from(len), field)
    }

    fn long(&mut self, field: &'static str) -> Result<&'a [u8], EntryError> {
        let len = self.number(field)?;
        self.take(len as usize, field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(block: Option<Vec<u8>>) -> JournalEntry {
        let header = std::array::from_fn(|i| i as u8);
        JournalEntry {
            recorded_us: 1_700_000_000_000_000,
            solution: Solution {
                template_id: 7,
                header,
                digest: Digest::of(&header),
                target: Target::DIFFICULTY_1,
                coinbase_tx: vec![1; 150],
                merkle_path: vec![[3; 32], [4; 32]],
                user_identity: b"user".to_vec(),
                worker_identity: b"".to_vec(),
            },
            block,
        }
    }

    #[test]
    fn what_was_written_is_read() {
        for block in [None, Some(vec![9; 1_000])] {
            let entry = entry(block);
            let (mut file, record) = encode(&entry);
            assert_eq!(decode(&file), Ok(Decoded { entry: entry.clone(), outcome: None, record }));
            file.extend(encode_outcome(&record, "accepted"));
            let decoded = decode(&file).unwrap();
            assert_eq!((decoded.entry, decoded.outcome.as_deref()), (entry, Some("accepted")));
        }
    }

    #[test]
    fn a_cut_anywhere_is_noticed() {
        let entry = entry(Some(vec![9; 300]));
        let (mut file, record) = encode(&entry);
        file.extend(encode_outcome(&record, "rejected: because"));
        for len in 0..file.len() {
            match decode(&file[..len]) {
                Err(error) => {
                    assert!(len < record.len as usize, "{len}");
                    assert_eq!(error, EntryError::Torn, "{len}");
                }
                Ok(decoded) => {
                    assert!(len >= record.len as usize, "{len}");
                    assert_eq!((decoded.entry, decoded.outcome), (entry.clone(), None));
                }
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let entry = entry(Some(vec![9; 300]));
        let (mut file, record) = encode(&entry);
        file.extend(encode_outcome(&record, "accepted"));
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut bad = file.clone();
                bad[at] ^= 1 << bit;
                match decode(&bad) {
                    Err(_) => assert!(at < record.len as usize, "{at}"),
                    Ok(decoded) => {
                        assert_eq!((decoded.entry, decoded.outcome), (entry.clone(), None), "{at}")
                    }
                }
            }
        }
    }

    #[test]
    fn long_outcomes_are_cut() {
        let (mut file, record) = encode(&entry(None));
        file.extend(encode_outcome(&record, &"é".repeat(2_000)));
        assert_eq!(decode(&file).unwrap().outcome, Some("é".repeat(512)));
    }
}
