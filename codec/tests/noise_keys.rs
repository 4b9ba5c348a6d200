//! Authority keys, certificates and pool URLs, against the specification's vector and SRI's test pair.
#![cfg(feature = "noise")]
#![allow(clippy::unwrap_used, reason = "a test may panic, also outside its #[test] function")]

use adit_codec::{
    keys::{
        AuthorityPublicKey, AuthoritySecretKey, CERTIFICATE_LEN, Certificate, CertificateError, KeyError,
        StaticKeyPair, StaticPublicKey,
    },
    url::{PoolUrl, ServerUrl, UrlError},
};

/// Spec 4.7.1.
const SPEC_KEY: &str = "9bXiEd8boQVhq7WddEcERUL5tyyJVFYdU8th3HfbNXK3Yw6GRXh";
const SPEC_KEY_BYTES: [u8; 32] = [
    118, 99, 112, 0, 151, 156, 28, 17, 175, 12, 48, 11, 205, 140, 127, 228, 134, 16, 252, 233, 185, 193, 30,
    61, 174, 227, 90, 224, 176, 138, 116, 85,
];
/// SRI's public test pair.
const SRI_PUBLIC: &str = "9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72";
const SRI_SECRET: &str = "mkDLTBBRxdBv998612qipDYoTK3YUrqLe8uWw7gu3iXbSrn2n";

fn public(text: &str) -> Result<AuthorityPublicKey, KeyError> {
    text.parse()
}

fn secret(text: &str) -> Result<AuthoritySecretKey, KeyError> {
    text.parse()
}

fn base58check(bytes: &[u8]) -> String {
    bs58::encode(bytes).with_check().into_string()
}

#[test]
fn the_specifications_key_reads_and_prints() {
    let key = public(SPEC_KEY).unwrap();
    assert_eq!(key.to_bytes(), SPEC_KEY_BYTES);
    assert_eq!(key.to_string(), SPEC_KEY);
    assert_eq!(AuthorityPublicKey::from_bytes(SPEC_KEY_BYTES), Ok(key));
}

#[test]
fn sri_s_pair_belongs_together() {
    let key = secret(SRI_SECRET).unwrap();
    assert_eq!(key.public_key(), public(SRI_PUBLIC).unwrap());
    assert_eq!(key.public_key().to_string(), SRI_PUBLIC);
    assert_eq!(key.to_secret_string(), SRI_SECRET);
}

#[test]
fn debug_shows_no_secret() {
    let key = secret(SRI_SECRET).unwrap();
    assert_eq!(format!("{key:?}"), format!("AuthoritySecretKey(of {SRI_PUBLIC})"));
    let static_key = StaticKeyPair::new(&[0x5a; 64]).unwrap();
    let shown = format!("{static_key:?}");
    assert!(!shown.contains("90, 90") && !shown.contains("5a5a"), "{shown}");
}

#[test]
fn any_changed_character_is_found() {
    for (text, is_public) in [(SPEC_KEY, true), (SRI_SECRET, false)] {
        for position in 0..text.len() {
            let other = if text.as_bytes()[position] == b'z' { 'y' } else { 'z' };
            let mut changed = text.to_owned();
            changed.replace_range(position..=position, &other.to_string());
            let error = if is_public { public(&changed).err() } else { secret(&changed).err() };
            assert_eq!(error, Some(KeyError::Checksum), "{changed}");
        }
    }
}

#[test]
fn each_fault_of_a_key_has_its_own_error() {
    let with_prefix = |prefix: [u8; 2]| base58check(&[&prefix[..], &SPEC_KEY_BYTES].concat());
    assert_eq!(with_prefix([1, 0]), SPEC_KEY);
    assert_eq!(public(&with_prefix([0, 1])), Err(KeyError::Prefix { found: [0, 1] }));
    assert_eq!(public(&with_prefix([2, 0])), Err(KeyError::Prefix { found: [2, 0] }));
    assert_eq!(public(SRI_SECRET), Err(KeyError::SecretKeyGiven));
    assert_eq!(secret(SPEC_KEY).err(), Some(KeyError::PublicKeyGiven));
    for len in [0, 1, 31, 33, 35, 60] {
        assert_eq!(public(&base58check(&vec![1; len])), Err(KeyError::Length { found: len, expected: 34 }));
        assert_eq!(
            secret(&base58check(&vec![2; len])).err(),
            Some(KeyError::Length { found: len, expected: 32 })
        );
    }
    assert_eq!(public(&with_prefix([1, 0])[..20]), Err(KeyError::Checksum));
    assert_eq!(public(""), Err(KeyError::Checksum));
    assert_eq!(public(&SPEC_KEY.replace('b', "0")), Err(KeyError::Character { position: 1 }));
    assert_eq!(public("9bXé"), Err(KeyError::Character { position: 3 }));
    assert_eq!(public(&"1".repeat(97)), Err(KeyError::TextTooLong { len: 97 }));
    let off_curve = [&[1, 0][..], &[0xff; 32]].concat();
    assert_eq!(public(&base58check(&off_curve)), Err(KeyError::NotOnCurve));
    assert_eq!(secret(&base58check(&[0; 32])).err(), Some(KeyError::SecretOutOfRange));
    assert_eq!(secret(&base58check(&[0xff; 32])).err(), Some(KeyError::SecretOutOfRange));
}

const NOW: u32 = 1_800_000_000;
const DRIFT: u32 = 10;

fn certified() -> (AuthoritySecretKey, StaticPublicKey, Certificate) {
    let authority = secret(SRI_SECRET).unwrap();
    let static_key = *StaticKeyPair::new(&[9; 64]).unwrap().public_key();
    let certificate = authority.certify(&static_key, NOW - 60, NOW + 3600, &[4; 32]);
    (authority, static_key, certificate)
}

#[test]
fn a_certificate_holds_within_its_time_and_the_drift() {
    let (authority, static_key, certificate) = certified();
    let authority = authority.public_key();
    let verify = |now| certificate.verify(&static_key, &authority, now, DRIFT);
    let (valid_from, not_valid_after) = (NOW - 60, NOW + 3600);
    assert_eq!(
        verify(valid_from - DRIFT - 1),
        Err(CertificateError::NotYetValid { valid_from, now: valid_from - DRIFT - 1 })
    );
    for now in [valid_from - DRIFT, valid_from, NOW, not_valid_after, not_valid_after + DRIFT] {
        assert_eq!(verify(now), Ok(()));
    }
    assert_eq!(
        verify(not_valid_after + DRIFT + 1),
        Err(CertificateError::Expired { not_valid_after, now: not_valid_after + DRIFT + 1 })
    );
    assert_eq!(certificate.verify(&static_key, &authority, u32::MAX, u32::MAX), Ok(()));
}

#[test]
fn any_changed_bit_of_a_certificate_is_found() {
    let (authority, static_key, certificate) = certified();
    let authority = authority.public_key();
    let bytes = certificate.to_bytes();
    assert_eq!(Certificate::from_bytes(&bytes), certificate);
    for bit in 0..CERTIFICATE_LEN * 8 {
        let mut changed = bytes;
        changed[bit / 8] ^= 1 << (bit % 8);
        let error =
            Certificate::from_bytes(&changed).verify(&static_key, &authority, NOW, DRIFT).unwrap_err();
        if bit < 16 {
            assert_eq!(error, CertificateError::Version { found: 1 << bit });
        } else {
            assert_eq!(error, CertificateError::Signature { authority }, "bit {bit}");
        }
    }
}

#[test]
fn a_certificate_is_for_one_key_and_one_authority() {
    let (authority, static_key, certificate) = certified();
    let authority = authority.public_key();
    let other_key = *StaticKeyPair::new(&[8; 64]).unwrap().public_key();
    assert_eq!(
        certificate.verify(&other_key, &authority, NOW, DRIFT),
        Err(CertificateError::Signature { authority })
    );
    let authority = public(SPEC_KEY).unwrap();
    assert_eq!(
        certificate.verify(&static_key, &authority, NOW, DRIFT),
        Err(CertificateError::Signature { authority })
    );
}

#[test]
fn pool_urls_read_and_print() {
    let authority = public(SPEC_KEY).unwrap();
    for (address, host, port, printed) in [
        ("thepool.com:34254", "thepool.com", 34254, "thepool.com:34254"),
        ("127.0.0.1:1", "127.0.0.1", 1, "127.0.0.1:1"),
        ("pool_1.a-b.example.:65535", "pool_1.a-b.example.", 65535, "pool_1.a-b.example.:65535"),
        ("localhost:034", "localhost", 34, "localhost:34"),
        ("[2001:DB8:0::1]:3333", "2001:db8::1", 3333, "[2001:db8::1]:3333"),
        ("[::]:3333", "::", 3333, "[::]:3333"),
    ] {
        let url: PoolUrl = format!("stratum2+tcp://{address}/{SPEC_KEY}").parse().unwrap();
        assert_eq!(url, PoolUrl { host: host.to_owned(), port, authority });
        assert_eq!(url.to_string(), format!("stratum2+tcp://{printed}/{SPEC_KEY}"));
        assert_eq!(url.to_string().parse(), Ok(url));
    }
    assert!(format!("STRATUM2+TCP://a:1/{SPEC_KEY}").parse::<PoolUrl>().is_ok());
}

#[test]
fn a_server_can_be_named_without_its_key() {
    let server: ServerUrl = format!("stratum2+tcp://[::1]:8442/{SPEC_KEY}").parse().unwrap();
    assert_eq!((server.host.as_str(), server.port, server.authority), ("::1", 8442, public(SPEC_KEY).ok()));
    for text in ["stratum2+tcp://a:1", "stratum2+tcp://a:1/"] {
        let server: ServerUrl = text.parse().unwrap();
        assert_eq!(server, ServerUrl { host: "a".to_owned(), port: 1, authority: None });
        assert_eq!(text.parse::<PoolUrl>(), Err(UrlError::KeyMissing));
    }
    assert!(matches!("stratum2+tcp://a:1/x".parse::<ServerUrl>(), Err(UrlError::Key(_))));
}

#[test]
fn each_fault_of_a_url_has_its_own_error() {
    let error = |text: &str| text.parse::<PoolUrl>().unwrap_err();
    let at = |address: &str| error(&format!("stratum2+tcp://{address}/{SPEC_KEY}"));
    for text in ["", "a:1", "stratum+tcp://a:1/K", "http://a:1/K", " stratum2+tcp://a:1/K"] {
        assert_eq!(error(text), UrlError::Scheme);
    }
    for host in ["", "a b", "a..b", "user@a", "a?", "-\u{e9}", "%41"] {
        assert_eq!(at(&format!("{host}:1")), UrlError::Host { found: host.to_owned() });
    }
    let long = "a".repeat(254);
    assert_eq!(at(&format!("{long}:1")), UrlError::Host { found: long });
    for address in ["::1:3333", "[::1:3333", "[::1]3333", "[a.b]:1", "[fe80::1%eth0]:1", "[]:1", "[::1]]:1"] {
        assert_eq!(at(address), UrlError::Ipv6 { found: address.to_owned() });
    }
    for address in ["a", "a:", "[::1]", "[::1]:"] {
        assert_eq!(at(address), UrlError::PortMissing, "{address}");
    }
    for port in ["0", "65536", "+1", "-1", "1x", "99999999999999999999"] {
        assert_eq!(at(&format!("a:{port}")), UrlError::Port { found: port.to_owned() });
        assert_eq!(at(&format!("[::1]:{port}")), UrlError::Port { found: port.to_owned() });
    }
    for text in ["stratum2+tcp://a:1", "stratum2+tcp://a:1/"] {
        assert_eq!(error(text), UrlError::KeyMissing);
    }
    assert_eq!(error(&format!("stratum2+tcp://a:1/{SRI_SECRET}")), UrlError::Key(KeyError::SecretKeyGiven));
    assert_eq!(
        error(&format!("stratum2+tcp://a:1/{SPEC_KEY}/")),
        UrlError::Key(KeyError::Character { position: 51 })
    );
    assert_eq!(error(&"a".repeat(513)), UrlError::TooLong { len: 513 });
}
