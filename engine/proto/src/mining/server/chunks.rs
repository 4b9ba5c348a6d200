//! A list that only grows, in chunks: what is in it does not move once it is longer than one chunk.
//!
//! A vector that doubles moves everything when it grows, which the next tick waits for, and holds up to twice what is in
//! it. Up to one chunk this is such a vector, because most connections have one channel.

use alloc::vec::Vec;
use core::ops::{Index, IndexMut};

/// Entries of a chunk.
const CHUNK_LEN: usize = 512;

/// Entries by index.
#[derive(Debug)]
pub(super) struct Chunks<T> {
    first: Vec<T>,
    /// Those beyond, `CHUNK_LEN` each.
    further: Vec<Vec<T>>,
}

impl<T> Chunks<T> {
    pub(super) const fn new() -> Self {
        Self { first: Vec::new(), further: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        match self.further.last() {
            None => self.first.len(),
            Some(last) => self.further.len() * CHUNK_LEN + last.len(),
        }
    }

    pub(super) fn push(&mut self, value: T) {
        if self.first.len() < CHUNK_LEN {
            if self.first.is_empty() {
                self.first.reserve_exact(1);
            }
            return self.first.push(value);
        }
        match self.further.last_mut() {
            Some(last) if last.len() < CHUNK_LEN => last.push(value),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK_LEN);
                chunk.push(value);
                self.further.push(chunk);
            }
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<&T> {
        match index.checked_sub(CHUNK_LEN) {
            None => self.first.get(index),
            Some(beyond) => self.further.get(beyond / CHUNK_LEN)?.get(beyond % CHUNK_LEN),
        }
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        match index.checked_sub(CHUNK_LEN) {
            None => self.first.get_mut(index),
            Some(beyond) => self.further.get_mut(beyond / CHUNK_LEN)?.get_mut(beyond % CHUNK_LEN),
        }
    }
}

impl<T> Index<u32> for Chunks<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        self.get(index as usize).expect("an index that was handed out")
    }
}

impl<T> IndexMut<u32> for Chunks<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        self.get_mut(index as usize).expect("an index that was handed out")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stay_where_they_are() {
        let mut chunks = Chunks::new();
        assert_eq!((chunks.len(), chunks.get(0)), (0, None));
        let mut places = Vec::new();
        for value in 0..5 * CHUNK_LEN {
            chunks.push(value);
            assert_eq!(chunks.len(), value + 1);
            assert_eq!((chunks.get(value), chunks.get(value + 1)), (Some(&value), None));
            if value + 1 >= CHUNK_LEN {
                places.push((value as u32, &raw const chunks[value as u32]));
            }
        }
        for (index, place) in places {
            assert_eq!(chunks[index], index as usize);
            assert_eq!(&raw const chunks[index], place);
            chunks[index] += 1;
            assert_eq!(chunks.get_mut(index as usize), Some(&mut (index as usize + 1)));
        }
    }

    #[test]
    fn one_entry_takes_no_more_than_one() {
        let mut chunks = Chunks::new();
        chunks.push(7_u64);
        assert_eq!(chunks.first.capacity(), 1);
        for _ in 1..CHUNK_LEN {
            chunks.push(7);
        }
        assert_eq!((chunks.first.capacity(), chunks.further.capacity()), (CHUNK_LEN, 0));
    }
}
