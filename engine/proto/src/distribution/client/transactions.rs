//! A template's transactions in one piece of memory: a list per transaction would cost the receiving thread thousands of
//! allocations, and the next tip may be behind them.

use alloc::vec::Vec;

use adit_codec::seq::SeqBytes;

/// A template's transactions as they came, in the order of the block and without the coinbase. At most what one frame holds.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TransactionList {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl TransactionList {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The transactions in order. What they hold was not looked at.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| &self.bytes[core::mem::replace(&mut start, *end)..*end])
    }

    fn push(&mut self, transaction: &[u8]) {
        self.bytes.extend_from_slice(transaction);
        self.ends.push(self.bytes.len());
    }
}

impl From<SeqBytes<'_>> for TransactionList {
    fn from(list: SeqBytes<'_>) -> Self {
        let len = list.iter().map(<[u8]>::len).sum();
        let mut this = Self { bytes: Vec::with_capacity(len), ends: Vec::with_capacity(list.len()) };
        list.iter().for_each(|transaction| this.push(transaction));
        this
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for TransactionList {
    fn from_iter<I: IntoIterator<Item = T>>(transactions: I) -> Self {
        let mut this = Self::default();
        transactions.into_iter().for_each(|transaction| this.push(transaction.as_ref()));
        this
    }
}

impl core::fmt::Debug for TransactionList {
    /// Megabytes help nobody.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} transactions of {} bytes", self.len(), self.bytes.len())
    }
}
