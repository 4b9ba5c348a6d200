//! SHA-256 as plain words: constants, the compression function, expanded schedules.
//!
//! Everything here is safe, constant in memory and `no_std`. It is what the other backends are proven against, and what
//! jobs use to prepare the parts that all their lanes share. FIPS 180-4 is the source.

/// The round constants.
pub(crate) const K: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
];

/// A chaining value: eight words in the order of the standard.
pub(crate) type State = [u32; 8];

/// The schedule of one block with the round constants added. A block whose bytes are known in advance costs its rounds
/// only.
pub(crate) type Schedule = [u32; 64];

/// The initial chaining value.
pub(crate) const IV: State =
    [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];

/// The first padding word.
pub(crate) const PAD: u32 = 0x8000_0000;

/// The second block of every 64-byte message: padding and length, no message bytes.
pub(crate) static PAD64: Schedule = expand(&[PAD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 512]);

/// Expands a block into its schedule, round constants included.
pub(crate) const fn expand(block: &[u32; 16]) -> Schedule {
    let mut w = [0; 64];
    let mut i = 0;
    while i < 64 {
        w[i] = if i < 16 {
            block[i]
        } else {
            let (a, b) = (w[i - 15], w[i - 2]);
            let s0 = a.rotate_right(7) ^ a.rotate_right(18) ^ (a >> 3);
            let s1 = b.rotate_right(17) ^ b.rotate_right(19) ^ (b >> 10);
            s0.wrapping_add(s1).wrapping_add(w[i - 16]).wrapping_add(w[i - 7])
        };
        i += 1;
    }
    i = 0;
    while i < 64 {
        w[i] = w[i].wrapping_add(K[i]);
        i += 1;
    }
    w
}

/// One round, whose words keep their places: the names move instead.
macro_rules! round {
    ($a:ident, $b:ident, $c:ident, $d:ident, $e:ident, $f:ident, $g:ident, $h:ident, $kw:expr) => {
        let s1 = $e.rotate_right(6) ^ $e.rotate_right(11) ^ $e.rotate_right(25);
        let t1 = $h.wrapping_add(s1).wrapping_add($g ^ ($e & ($f ^ $g))).wrapping_add($kw);
        let s0 = $a.rotate_right(2) ^ $a.rotate_right(13) ^ $a.rotate_right(22);
        $d = $d.wrapping_add(t1);
        $h = t1.wrapping_add(s0).wrapping_add(($a & $b) | ($c & ($a | $b)));
    };
}

/// The 64 rounds and the final addition, over an expanded schedule.
pub(crate) fn compress_const(state: &mut State, schedule: &Schedule) {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for kw in schedule.as_chunks::<8>().0 {
        round!(a, b, c, d, e, f, g, h, kw[0]);
        round!(h, a, b, c, d, e, f, g, kw[1]);
        round!(g, h, a, b, c, d, e, f, kw[2]);
        round!(f, g, h, a, b, c, d, e, kw[3]);
        round!(e, f, g, h, a, b, c, d, kw[4]);
        round!(d, e, f, g, h, a, b, c, kw[5]);
        round!(c, d, e, f, g, h, a, b, kw[6]);
        round!(b, c, d, e, f, g, h, a, kw[7]);
    }
    for (word, add) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = word.wrapping_add(add);
    }
}

/// One compression.
pub(crate) fn compress(state: &mut State, block: &[u32; 16]) {
    compress_const(state, &expand(block));
}

/// Reads `N` big-endian words from the front of `bytes`.
pub(crate) fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut out = [0; N];
    for (word, chunk) in out.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
    }
    out
}

/// A chaining value as the bytes of a digest.
pub(crate) fn to_bytes(state: &State) -> [u8; 32] {
    let mut out = [0; 32];
    for (chunk, word) in out.chunks_exact_mut(4).zip(state) {
        chunk.copy_from_slice(&word.to_be_bytes());
    }
    out
}

/// The hash of a 32-byte digest held as words: the second half of every double hash.
pub(crate) fn second(first: &State) -> State {
    let mut block = [0; 16];
    block[..8].copy_from_slice(first);
    block[8] = PAD;
    block[15] = 256;
    let mut state = IV;
    compress(&mut state, &block);
    state
}

/// How many blocks a message takes with its padding.
#[inline(always)]
pub(crate) const fn padded_blocks(message_len: usize) -> usize {
    (message_len + 8) / 64 + 1
}

/// One of the `blocks` blocks that a message takes with its padding.
#[inline(always)]
pub(crate) fn padded_block(message: &[u8], block: usize, blocks: usize, out: &mut [u8; 64]) {
    let start = (64 * block).min(message.len());
    let rest = &message[start..];
    if rest.len() >= 64 {
        out.copy_from_slice(&rest[..64]);
        return;
    }
    out[..rest.len()].copy_from_slice(rest);
    out[rest.len()..].fill(0);
    // The padding may have begun in the block before.
    if 64 * block <= message.len() {
        out[rest.len()] = 0x80;
    }
    if block + 1 == blocks {
        out[56..].copy_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    }
}

/// Double-SHA256 of a message of any length.
pub(crate) fn double(message: &[u8]) -> State {
    let (mut state, mut bytes) = (IV, [0; 64]);
    let blocks = padded_blocks(message.len());
    for block in 0..blocks {
        padded_block(message, block, blocks, &mut bytes);
        compress(&mut state, &words(&bytes));
    }
    second(&state)
}

/// The parent of two nodes of a merkle tree, all as words.
pub(crate) fn node(left: &State, right: &State) -> State {
    let mut block = [0; 16];
    block[..8].copy_from_slice(left);
    block[8..].copy_from_slice(right);
    let mut state = IV;
    compress(&mut state, &block);
    compress_const(&mut state, &PAD64);
    second(&state)
}
