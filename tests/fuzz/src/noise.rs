//! What strangers can send to the encrypted transport: acts, sealed streams, keys and URLs.

use std::sync::OnceLock;

use adit_codec::{
    frame::FrameHeader,
    keys::{AuthorityPublicKey, AuthoritySecretKey, Certificate, StaticKeyPair},
    noise::{
        ACT1_LEN, ACT2_LEN, EphemeralKey, Initiator, Responder, SecureDeframer, SpareBuffers, Transport,
        sealed_len,
    },
    url::PoolUrl,
};

/// Small, so that inputs of a few kilobytes cross it.
const PAYLOAD_LEN_MAX: u32 = 2000;

/// The first byte chooses what the others are: changes to the acts, a stranger's stream, a peer's stream, text.
///
/// # Panics
/// A promise of the encrypted transport is broken.
pub fn handshake(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    match choice % 4 {
        0 => acts(bytes),
        1 => stream_of_a_stranger(bytes),
        2 => stream_of_a_peer(bytes),
        _ => text(bytes),
    }
}

struct Server {
    authority: AuthorityPublicKey,
    static_key: StaticKeyPair,
    certificate: Certificate,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let authority = AuthoritySecretKey::from_bytes(&[1; 32]).expect("a valid secret");
        let static_key = StaticKeyPair::new(&[2; 64]).expect("a valid secret");
        let certificate = authority.certify(static_key.public_key(), 0, u32::MAX, &[3; 32]);
        Server { authority: authority.public_key(), static_key, certificate }
    })
}

fn respond(act1: &[u8; ACT1_LEN]) -> ([u8; ACT2_LEN], Transport) {
    let Server { static_key, certificate, .. } = server();
    let mut act2 = [0; ACT2_LEN];
    let ephemeral = EphemeralKey::new(&[4; 64]).expect("a valid secret");
    let transport = Responder::respond(act1, static_key, certificate, ephemeral, &mut act2);
    (act2, transport)
}

fn initiator() -> (Initiator, [u8; ACT1_LEN]) {
    Initiator::new(EphemeralKey::new(&[5; 64]).expect("a valid secret"))
}

fn pair() -> (Transport, Transport) {
    let (initiator, act1) = initiator();
    let (act2, responding) = respond(&act1);
    (initiator.finish(&act2, Some(&server().authority), 1, 0).expect("an untouched handshake"), responding)
}

/// The bytes are xored over `message`; returns whether that changes it.
fn tamper(message: &mut [u8], bytes: &[u8]) -> bool {
    let mut changed = false;
    for (byte, change) in message.iter_mut().zip(bytes) {
        *byte ^= change;
        changed |= *change != 0;
    }
    changed
}

/// Either act changed in any way: only the untouched handshake succeeds.
fn acts(bytes: &[u8]) {
    let (initiator, mut act1) = initiator();
    let mut changed = tamper(&mut act1, bytes);
    let (mut act2, _) = respond(&act1);
    changed |= tamper(&mut act2, bytes.get(ACT1_LEN..).unwrap_or_default());
    assert_eq!(initiator.finish(&act2, Some(&server().authority), 1, 0).is_err(), changed);
}

/// A stream that nobody sealed: an error at its first header.
fn stream_of_a_stranger(bytes: &[u8]) {
    let (_, receiving) = pair();
    let mut deframer = SecureDeframer::new(receiving.opener, PAYLOAD_LEN_MAX);
    let mut bytes = bytes.to_vec();
    let complete = bytes.len() >= 22;
    let mut failed = false;
    for mut piece in bytes.chunks_mut(7) {
        match deframer.next_frame(&mut piece) {
            Ok(frame) => assert!(frame.is_none() && !failed),
            Err(_) => failed = true,
        }
        assert!(deframer.buffered_len() <= 22);
    }
    assert_eq!(failed, complete);
}

/// A peer who knows the keys: each pair of bytes is a frame of that length, each byte also the length of a piece.
fn stream_of_a_peer(bytes: &[u8]) {
    let (mut sending, receiving) = pair();
    let mut stream = Vec::new();
    let mut sent = Vec::new();
    for length in bytes.chunks_exact(2).take(64) {
        let payload_len = usize::from(u16::from_le_bytes([length[0], length[1] & 0x0f]));
        let header = FrameHeader {
            extension_type: 0,
            channel_msg: true,
            msg_type: length[0],
            payload_len: payload_len as u32,
        };
        let mut frame = header.to_bytes().to_vec();
        frame.extend((0..payload_len).map(|i| i as u8));
        let start = stream.len();
        stream.resize(start + sealed_len(payload_len), 0);
        sending.sealer.seal_frame_into(&frame, &mut stream[start..]).expect("room and nonces");
        sent.push(frame);
    }
    let refused_at = sent.iter().position(|frame| frame.len() > 6 + PAYLOAD_LEN_MAX as usize);
    let mut deframer = SecureDeframer::new(receiving.opener, PAYLOAD_LEN_MAX);
    let mut spares = SpareBuffers::new(1);
    let mut received = 0;
    let mut cuts = bytes.iter().cycle();
    let mut rest = &mut stream[..];
    let mut failed = false;
    while !rest.is_empty() {
        let cut = cuts.next().map_or(1, |&cut| 1 + usize::from(cut) * 3);
        let (mut piece, after) = rest.split_at_mut(rest.len().min(cut));
        rest = after;
        loop {
            match deframer.next_frame_with(&mut piece, &mut spares) {
                Ok(Some((header, payload))) => {
                    assert!(!failed);
                    assert_eq!(header.to_bytes(), sent[received][..6]);
                    assert_eq!(payload, &sent[received][6..]);
                    received += 1;
                }
                Ok(None) => break,
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
        assert!(deframer.buffered_len() <= PAYLOAD_LEN_MAX as usize + 16);
    }
    assert_eq!(failed, refused_at.is_some());
    assert_eq!(received, refused_at.unwrap_or(sent.len()));
}

/// Text that is accepted prints as something that is accepted and means the same.
fn text(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    if let Ok(key) = text.parse::<AuthorityPublicKey>() {
        assert_eq!(key.to_string().parse(), Ok(key));
    }
    if let Ok(key) = text.parse::<AuthoritySecretKey>() {
        let again: AuthoritySecretKey = key.to_secret_string().parse().expect("its own text");
        assert_eq!(again.public_key(), key.public_key());
    }
    if let Ok(url) = text.parse::<PoolUrl>() {
        assert_eq!(url.to_string().parse(), Ok(url));
    }
}
