//! The handshake between our two sides: agreement, tampering, identity.
#![cfg(feature = "noise")]
#![allow(clippy::unwrap_used, reason = "a test may panic, also outside its #[test] function")]

use adit_codec::{
    frame::FrameHeader,
    keys::{AuthoritySecretKey, CERTIFICATE_VERSION, Certificate, CertificateError, StaticKeyPair},
    noise::{
        ACT1_LEN, ACT2_LEN, EphemeralKey, HandshakeError, Initiator, OpenError, Responder, SEALED_HEADER_LEN,
        Transport, sealed_len,
    },
};

const NOW: u32 = 1_800_000_000;
const DRIFT: u32 = 10;

struct Server {
    authority: AuthoritySecretKey,
    static_key: StaticKeyPair,
    certificate: Certificate,
}

impl Server {
    fn new() -> Self {
        let authority = AuthoritySecretKey::from_bytes(&[0x11; 32]).unwrap();
        let static_key = StaticKeyPair::new(&[0x22; 64]).unwrap();
        let certificate = authority.certify(static_key.public_key(), NOW - 60, NOW + 3600, &[0x33; 32]);
        Self { authority, static_key, certificate }
    }

    fn respond(&self, act1: &[u8; ACT1_LEN]) -> ([u8; ACT2_LEN], Transport) {
        let mut act2 = [0; ACT2_LEN];
        let ephemeral = EphemeralKey::new(&[0x44; 64]).unwrap();
        let transport = Responder::respond(act1, &self.static_key, &self.certificate, ephemeral, &mut act2);
        (act2, transport)
    }

    fn finish(&self, initiator: Initiator, act2: &[u8; ACT2_LEN]) -> Result<Transport, HandshakeError> {
        initiator.finish(act2, Some(&self.authority.public_key()), NOW, DRIFT)
    }
}

fn initiator() -> (Initiator, [u8; ACT1_LEN]) {
    Initiator::new(EphemeralKey::new(&[0x55; 64]).unwrap())
}

/// Sends a frame from one to the other.
fn passes(from: &mut Transport, to: &mut Transport) -> bool {
    let payload = *b"between the two";
    let header = FrameHeader {
        extension_type: 1,
        channel_msg: true,
        msg_type: 0x1a,
        payload_len: payload.len() as u32,
    };
    let mut frame = header.to_bytes().to_vec();
    frame.extend(payload);
    let mut sealed = vec![0; sealed_len(payload.len())];
    from.sealer.seal_frame_into(&frame, &mut sealed).unwrap();
    let (sealed_header, sealed_payload) = sealed.split_first_chunk_mut::<SEALED_HEADER_LEN>().unwrap();
    match to.opener.open_header(sealed_header) {
        Err(OpenError::Tag) => false,
        opened => {
            assert_eq!(opened, Ok(header));
            let len = to.opener.open_payload(sealed_payload).unwrap();
            assert_eq!(sealed_payload[..len], payload);
            true
        }
    }
}

#[test]
fn both_sides_agree() {
    let server = Server::new();
    let (initiator, act1) = initiator();
    let (act2, mut responding) = server.respond(&act1);
    let mut initiating = server.finish(initiator, &act2).unwrap();
    for _ in 0..3 {
        assert!(passes(&mut initiating, &mut responding));
        assert!(passes(&mut responding, &mut initiating));
    }
}

#[test]
fn the_directions_have_different_keys() {
    let server = Server::new();
    let (initiator, act1) = initiator();
    let (act2, responding) = server.respond(&act1);
    let initiating = server.finish(initiator, &act2).unwrap();
    let mut mirror = Transport { opener: responding.opener, sealer: responding.sealer };
    let mut sealed = [0; SEALED_HEADER_LEN];
    mirror.sealer.seal_frame_into(&[0; 6], &mut sealed).unwrap();
    assert_eq!(mirror.opener.open_header(&mut sealed), Err(OpenError::Tag));
    drop(initiating);
}

/// A changed act 1 still is a key, so the responder answers; the initiator must find out.
#[test]
fn every_changed_byte_of_act_1_is_found() {
    let server = Server::new();
    for position in 0..ACT1_LEN {
        let (initiator, mut act1) = initiator();
        act1[position] ^= 1;
        let (act2, _) = server.respond(&act1);
        assert_eq!(server.finish(initiator, &act2).err(), Some(HandshakeError::StaticKey), "byte {position}");
    }
}

#[test]
fn every_changed_byte_of_act_2_is_found() {
    let server = Server::new();
    for position in 0..ACT2_LEN {
        let (initiator, act1) = initiator();
        let (mut act2, _) = server.respond(&act1);
        act2[position] ^= 0x80;
        let expected = if position < 144 { HandshakeError::StaticKey } else { HandshakeError::Certificate };
        assert_eq!(server.finish(initiator, &act2).err(), Some(expected), "byte {position}");
    }
}

#[test]
fn act_2_of_another_handshake_is_refused() {
    let server = Server::new();
    let (_, act1) = initiator();
    let (act2, _) = server.respond(&act1);
    let (other, _) = Initiator::new(EphemeralKey::new(&[0x56; 64]).unwrap());
    assert_eq!(server.finish(other, &act2).err(), Some(HandshakeError::StaticKey));
}

fn identity_error(server: &Server, authority: &AuthoritySecretKey, now: u32) -> Option<CertificateError> {
    let (initiator, act1) = initiator();
    let (act2, _) = server.respond(&act1);
    match initiator.finish(&act2, Some(&authority.public_key()), now, DRIFT) {
        Ok(_) => None,
        Err(HandshakeError::Identity(error)) => Some(error),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn who_the_server_is_gets_checked() {
    let mut server = Server::new();
    assert_eq!(identity_error(&server, &server.authority, NOW), None);

    let other = AuthoritySecretKey::from_bytes(&[0x12; 32]).unwrap();
    let authority = other.public_key();
    assert_eq!(identity_error(&server, &other, NOW), Some(CertificateError::Signature { authority }));

    let (early, late) = (NOW - 3600, NOW + 7200);
    assert_eq!(
        identity_error(&server, &server.authority, early),
        Some(CertificateError::NotYetValid { valid_from: NOW - 60, now: early })
    );
    assert_eq!(
        identity_error(&server, &server.authority, late),
        Some(CertificateError::Expired { not_valid_after: NOW + 3600, now: late })
    );

    // A server with a certificate for another static key.
    server.static_key = StaticKeyPair::new(&[0x23; 64]).unwrap();
    let authority = server.authority.public_key();
    assert_eq!(
        identity_error(&server, &server.authority, NOW),
        Some(CertificateError::Signature { authority })
    );

    server.certificate.version = CERTIFICATE_VERSION + 1;
    assert_eq!(identity_error(&server, &server.authority, NOW), Some(CertificateError::Version { found: 1 }));
}

#[test]
fn every_changed_byte_of_the_certificate_is_found() {
    let mut server = Server::new();
    let bytes = server.certificate.to_bytes();
    for position in 0..bytes.len() {
        let mut changed = bytes;
        changed[position] ^= 1;
        server.certificate = Certificate::from_bytes(&changed);
        assert!(identity_error(&server, &server.authority, NOW).is_some(), "byte {position}");
    }
}

#[test]
fn without_an_authority_only_the_version_counts() {
    let mut server = Server::new();
    let finish = |server: &Server| {
        let (initiator, act1) = initiator();
        let (act2, _) = server.respond(&act1);
        initiator.finish(&act2, None, NOW + 1_000_000, DRIFT).err()
    };
    server.certificate.signature = [0; 64];
    assert_eq!(finish(&server), None);
    server.certificate.version = 7;
    let error = HandshakeError::Identity(CertificateError::Version { found: 7 });
    assert_eq!(finish(&server), Some(error));
    assert_eq!(
        error.to_string(),
        "the server is not who it should be: the certificate has version 7, only 0 is known"
    );
}

/// Act 1 is any 64 bytes, also those that encode no ordinary point.
#[test]
fn the_responder_answers_whatever_arrives() {
    let server = Server::new();
    for act1 in [[0; ACT1_LEN], [0xff; ACT1_LEN], [0x7f; ACT1_LEN]] {
        let (act2, _) = server.respond(&act1);
        assert_ne!(act2, [0; ACT2_LEN]);
    }
}

#[test]
fn debug_shows_no_keys() {
    let server = Server::new();
    let (initiator, act1) = initiator();
    assert_eq!(format!("{initiator:?}"), "Initiator");
    let (_, transport) = server.respond(&act1);
    assert_eq!(format!("{transport:?}"), "Transport { opener: Opener, sealer: Sealer }");
    assert_eq!(format!("{:?}", EphemeralKey::new(&[1; 64]).unwrap()), "EphemeralKey");
}

#[test]
fn a_transport_is_96_bytes() {
    assert_eq!(size_of::<Transport>(), 96);
}
