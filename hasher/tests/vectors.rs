//! Facts from the chain and from consensus: headers and their hashes, a block's merkle tree, compact targets.

use adit_hasher::{
    BatchHash, CoinbaseJob, Digest, HeaderBytes, NbitsError, Portable, Target, merkle_path, merkle_root,
    merkle_root_from_path,
};

/// Mainnet headers of heights 0, 1 and 100,000, and their hashes.
const HEADERS: [(&str, &str); 3] = [
    (
        "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c",
        "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
    ),
    (
        "010000006fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000982051fd1e4ba744bbbe680e1fee14677ba1a3c3540bf7b1cdb606e857233e0e61bc6649ffff001d01e36299",
        "00000000839a8e6886ab5951d76f411475428afc90947ee320161bbf18eb6048",
    ),
    (
        "0100000050120119172a610421a6c3011dd330d9df07b63616c2cc1f1cd00200000000006657a9252aacd5c0b2940996ecff952228c3067cc38d4885efb5a4ac4247e9f337221b4d4c86041b0f2b5710",
        "000000000003ba27aa200b1cecaad478d2b00432346c3f1f3986da1afd33e506",
    ),
];

/// The transaction ids of mainnet block 100,000.
const TXIDS: [&str; 4] = [
    "8c14f0db3df150123e6f3dbbf30f8b955a8249b62ac1d1ff16284aefa3d06d87",
    "fff2525b8931402dd09222c50775608f75787bd2b87e56995a7bdd30f79702c4",
    "6359f0868171b1d194cbee1af2f16ea598ae8fad666d9b012c8ed2b79a236ec4",
    "e9a66845e05d5abc0ad04ec80f774a7e585c6e8db975962d069a522137b80c1d",
];

/// The coinbase of the genesis block: its id is the block's merkle root.
const GENESIS_COINBASE: &str = "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d0104455468652054696d65732030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f66207365636f6e64206261696c6f757420666f722062616e6b73ffffffff0100f2052a01000000434104678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac00000000";

fn header(hex: &str) -> HeaderBytes {
    hex::decode(hex).expect("hex").try_into().expect("the right length")
}

/// 32 bytes in internal order from what explorers show.
fn internal(hex: &str) -> [u8; 32] {
    let mut bytes: [u8; 32] = hex::decode(hex).expect("hex").try_into().expect("the right length");
    bytes.reverse();
    bytes
}

fn backends() -> Vec<Box<dyn BatchHash>> {
    vec![
        Box::new(Portable),
        #[cfg(feature = "kernels")]
        Box::new(adit_hasher::Hasher::detect()),
    ]
}

#[test]
fn mainnet_headers() {
    let headers = HEADERS.map(|(bytes, _)| header(bytes));
    for backend in backends() {
        let mut digests = [Digest::default(); 3];
        backend.header_digests(&headers, &mut digests);
        assert_eq!(digests.map(|digest| digest.to_string()), HEADERS.map(|(_, hash)| hash.to_owned()));
    }
    for (header, hash) in headers.iter().zip(HEADERS.map(|(_, hash)| internal(hash))) {
        let target = Target::from_nbits(u32::from_le_bytes(header[72..76].try_into().unwrap())).unwrap();
        assert!(target.is_met_by(&Digest(hash)));
        assert!(!Target::from_nbits(0x1a00_ffff).unwrap().is_met_by(&Digest(hash)));
    }
}

#[test]
fn the_genesis_nonce_is_found() {
    let header = header(HEADERS[0].0);
    let nonce = u32::from_le_bytes(header[76..].try_into().unwrap());
    for backend in backends() {
        let mut found = Vec::new();
        let tried = backend.scan_nonces(&header, nonce - 100, 200, &Target::DIFFICULTY_1, &mut found, 10);
        assert_eq!((tried, found), (200, vec![nonce]));
    }
}

#[test]
fn the_tree_of_block_100000() {
    let txids = TXIDS.map(internal);
    let root: [u8; 32] = header(HEADERS[2].0)[36..68].try_into().unwrap();
    assert_eq!(merkle_root(&txids), root);
    let path = merkle_path(&txids);
    assert_eq!((path.len(), path[0]), (2, txids[1]));
    assert_eq!(merkle_root_from_path(&txids[0], &path), root);
}

#[test]
fn the_genesis_coinbase_is_the_root() {
    let coinbase = hex::decode(GENESIS_COINBASE).unwrap();
    let root: [u8; 32] = header(HEADERS[0].0)[36..68].try_into().unwrap();
    assert_eq!(Digest::of(&coinbase).0, root);
    for backend in backends() {
        for len in 0..=32 {
            let (prefix, rest) = coinbase.split_at(50);
            let (extranonce, suffix) = rest.split_at(len);
            let job = CoinbaseJob::new(prefix, len, suffix, &[]).unwrap();
            let mut roots = [[0; 32]; 3];
            backend.merkle_roots(&job, &extranonce.repeat(3), &mut roots);
            assert_eq!(roots, [root; 3], "{len} bytes");
        }
    }
}

/// The vectors of Bitcoin Core's `bignum_SetCompact`.
#[test]
fn compact_targets() {
    for zero in [
        0,
        0x0012_3456,
        0x0100_3456,
        0x0200_0056,
        0x0300_0000,
        0x0400_0000,
        0x0092_3456,
        0x0180_3456,
        0x0280_0056,
        0x0380_0000,
        0x0480_0000,
    ] {
        assert_eq!(Target::from_nbits(zero), Err(NbitsError::Zero), "{zero:#010x}");
    }
    for negative in [0x01fe_dcba, 0x0492_3456] {
        assert_eq!(Target::from_nbits(negative), Err(NbitsError::Negative), "{negative:#010x}");
    }
    // The last two of each kind stand at the border of 256 bits.
    for overflow in [0xff12_3456, 0x2300_0001, 0x2200_0100, 0x2101_0000] {
        assert_eq!(Target::from_nbits(overflow), Err(NbitsError::Overflow), "{overflow:#010x}");
    }
    for (nbits, value, canonical) in [
        (0x0112_3456, "12", 0x0112_0000),
        (0x0212_3456, "1234", 0x0212_3400),
        (0x0312_3456, "123456", 0x0312_3456),
        (0x0412_3456, "12345600", 0x0412_3456),
        (0x0500_9234, "92340000", 0x0500_9234),
        (0x2012_3456, "1234560000000000000000000000000000000000000000000000000000000000", 0x2012_3456),
        (0x2200_0001, "0100000000000000000000000000000000000000000000000000000000000000", 0x2001_0000),
        (0x2100_ffff, "ffff000000000000000000000000000000000000000000000000000000000000", 0x2100_ffff),
    ] {
        let target = Target::from_nbits(nbits).unwrap();
        assert_eq!(target.to_string(), format!("{value:0>64}"), "{nbits:#010x}");
        assert_eq!(target.to_nbits(), canonical, "{nbits:#010x}");
    }
    let mut bytes = [0; 32];
    assert_eq!(Target::from_le_bytes(bytes).to_nbits(), 0);
    bytes[0] = 0x80;
    assert_eq!(Target::from_le_bytes(bytes).to_nbits(), 0x0200_8000);
    assert_eq!(Target::from_nbits(0x1d00_ffff), Ok(Target::DIFFICULTY_1));
}
