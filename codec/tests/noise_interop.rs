//! Live against SRI's `noise_sv2` and `codec_sv2`: handshakes and frames, with either side as the initiator.
#![cfg(feature = "noise")]
#![allow(clippy::unwrap_used, reason = "a test may panic, also outside its #[test] function")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_codec::{
    frame::FrameHeader,
    keys::{AuthorityPublicKey, AuthoritySecretKey, CertificateError, StaticKeyPair},
    noise::{
        ACT1_LEN, ACT2_LEN, Aead, AeadBackend, EphemeralKey, FRAME_OFFSET, HandshakeError, Initiator,
        Responder, SecureDeframer, SpareBuffers, Transport, sealed_len,
    },
};
use codec_sv2::{
    Decrypted, Handshake, HandshakeMessage, NoiseDecoder, NoiseEncoder, TransportDecryptState,
    TransportEncryptState,
};
use framing_sv2::framing::SerializedFrame;

/// SRI's public test pair.
const PUBLIC: &str = "9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72";
const SECRET: &str = "mkDLTBBRxdBv998612qipDYoTK3YUrqLe8uWw7gu3iXbSrn2n";
const DRIFT: u32 = 10;
const SIZES: [usize; 10] = [0, 1, 16, 40, 65_518, 65_519, 65_520, 131_038, 131_039, 200_000];

fn now() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32
}

fn authority() -> AuthorityPublicKey {
    PUBLIC.parse().unwrap()
}

fn act<const N: usize>(message: &HandshakeMessage) -> [u8; N] {
    message.payload().try_into().unwrap()
}

fn their_initiator() -> Handshake<noise_sv2::Initiator> {
    Handshake::initiator(noise_sv2::Initiator::from_raw_k(authority().to_bytes()).unwrap())
}

fn their_responder() -> Handshake<noise_sv2::Responder> {
    let secret: [u8; 32] = bs58::decode(SECRET).with_check(None).into_vec().unwrap().try_into().unwrap();
    let validity = Duration::from_secs(3600);
    Handshake::responder(
        noise_sv2::Responder::from_authority_kp(&authority().to_bytes(), &secret, validity).unwrap(),
    )
}

fn our_initiator() -> (Initiator, [u8; ACT1_LEN]) {
    Initiator::new(EphemeralKey::new(&[0x41; 64]).unwrap())
}

fn our_answer(
    act1: &[u8; ACT1_LEN],
    secret: &AuthoritySecretKey,
    valid_from: u32,
    not_valid_after: u32,
) -> ([u8; ACT2_LEN], Transport) {
    let static_key = StaticKeyPair::new(&[0x42; 64]).unwrap();
    let certificate = secret.certify(static_key.public_key(), valid_from, not_valid_after, &[0x43; 32]);
    let mut act2 = [0; ACT2_LEN];
    let ephemeral = EphemeralKey::new(&[0x44; 64]).unwrap();
    let transport = Responder::respond(act1, &static_key, &certificate, ephemeral, &mut act2);
    (act2, transport)
}

/// Both ends of a handshake, ours first.
type Ends = (Transport, codec_sv2::Transport);

fn we_initiate() -> Ends {
    let (initiator, act1) = our_initiator();
    let (act2, theirs) = their_responder().step_1(act1).unwrap();
    (initiator.finish(&act(&act2), Some(&authority()), now(), DRIFT).unwrap(), theirs)
}

fn they_initiate() -> Ends {
    let (act1, initiator) = their_initiator().step_0().unwrap();
    let (act2, ours) = our_answer(&act(&act1), &SECRET.parse().unwrap(), now() - 60, now() + 60);
    (ours, initiator.step_2(act2).unwrap())
}

fn frame(msg_type: u8, payload_len: usize) -> Vec<u8> {
    let header = FrameHeader {
        extension_type: u16::from(msg_type % 2),
        channel_msg: msg_type.is_multiple_of(3),
        msg_type,
        payload_len: payload_len as u32,
    };
    let mut frame = header.to_bytes().to_vec();
    frame.extend((0..payload_len).map(|i| (i * 31 + i / 253) as u8 ^ msg_type));
    frame
}

fn they_seal(encoder: &mut NoiseEncoder, state: &mut TransportEncryptState, frame: &[u8]) -> Vec<u8> {
    let frame = SerializedFrame::from_bytes(frame.to_vec()).unwrap();
    encoder.encode_transport(frame, state).unwrap()
}

fn they_open(
    decoder: &mut NoiseDecoder,
    mut state: TransportDecryptState,
    mut bytes: &[u8],
) -> (Vec<u8>, TransportDecryptState) {
    loop {
        let room = decoder.writable();
        let (taken, rest) = bytes.split_at(room.len());
        room.copy_from_slice(taken);
        bytes = rest;
        match decoder.next_transport_frame(state).unwrap() {
            Decrypted::Frame(frame, state) => {
                assert!(bytes.is_empty());
                return (frame.as_bytes().to_vec(), state);
            }
            Decrypted::Incomplete(_, again) => state = again,
        }
    }
}

fn frames_pass_both_ways((ours, theirs): Ends) {
    let Transport { opener, mut sealer } = ours;
    let mut deframer = SecureDeframer::new(opener, 1 << 20);
    let (mut encrypt, mut decrypt) = theirs.split();
    let (mut encoder, mut decoder) = (NoiseEncoder::new(), NoiseDecoder::new());
    let mut sent = Vec::new();
    for (round, len) in SIZES.into_iter().chain(0..200).chain(SIZES).enumerate() {
        let plain = frame(round as u8, len);

        let mut buffer = vec![0; sealed_len(len)];
        buffer[FRAME_OFFSET..FRAME_OFFSET + plain.len()].copy_from_slice(&plain);
        let sealed_len = sealer.seal_frame(&mut buffer, plain.len()).unwrap();
        let (opened, state) = they_open(&mut decoder, decrypt, &buffer[..sealed_len]);
        decrypt = state;
        assert!(opened == plain, "{len} bytes to SRI");

        sent.push(plain.clone());
        let mut stream = they_seal(&mut encoder, &mut encrypt, &plain);
        assert_eq!(stream.len(), sealed_len);
        let mut received = Vec::new();
        for mut piece in stream.chunks_mut(4096) {
            while let Some((header, payload)) = deframer.next_frame(&mut piece).unwrap() {
                received.push([&header.to_bytes(), payload].concat());
            }
        }
        assert!(received == [plain], "{len} bytes from SRI");
    }

    // Many frames in one piece.
    let mut stream: Vec<u8> =
        sent.iter().flat_map(|plain| they_seal(&mut encoder, &mut encrypt, plain)).collect();
    let (mut frames, mut spares) = (deframer.frames(&mut stream), SpareBuffers::new(0));
    for plain in &sent {
        let (header, payload) = frames.next_frame(&mut spares).unwrap().unwrap();
        assert!((header.to_bytes(), payload) == (*plain.first_chunk().unwrap(), &plain[6..]));
    }
    assert_eq!(frames.next_frame(&mut spares), Ok(None));
}

#[test]
fn frames_pass_when_we_initiate() {
    frames_pass_both_ways(we_initiate());
}

#[test]
fn frames_pass_when_they_initiate() {
    frames_pass_both_ways(they_initiate());
}

#[test]
fn frames_pass_whatever_we_encrypt_with() {
    for aead in AeadBackend::ALL.into_iter().filter_map(Aead::forced) {
        let (mut ours, theirs) = they_initiate();
        ours.set_aead(aead);
        frames_pass_both_ways((ours, theirs));
    }
}

/// Every key is random on their side: encodings that only sometimes occur must work as well.
#[test]
fn many_handshakes_succeed() {
    for _ in 0..50 {
        we_initiate();
        they_initiate();
    }
}

#[test]
fn we_judge_their_certificate() {
    let finish = |authority: &AuthorityPublicKey, now: u32| {
        let (initiator, act1) = our_initiator();
        let (act2, _) = their_responder().step_1(act1).unwrap();
        match initiator.finish(&act(&act2), Some(authority), now, DRIFT).err() {
            Some(HandshakeError::Identity(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    let late = now() + 3600 + 1000;
    let early = now() - 1000;
    assert!(matches!(finish(&authority(), late), CertificateError::Expired { now, .. } if now == late));
    assert!(matches!(finish(&authority(), early), CertificateError::NotYetValid { now, .. } if now == early));
    let authority = AuthoritySecretKey::from_bytes(&[5; 32]).unwrap().public_key();
    assert_eq!(finish(&authority, now()), CertificateError::Signature { authority });
}

#[test]
fn they_judge_our_certificate() {
    let step_2 = |secret: &AuthoritySecretKey, valid_from: u32, not_valid_after: u32| {
        let (act1, initiator) = their_initiator().step_0().unwrap();
        let (act2, _) = our_answer(&act(&act1), secret, valid_from, not_valid_after);
        initiator.step_2(act2).is_ok()
    };
    let secret = SECRET.parse().unwrap();
    let now = now();
    assert!(step_2(&secret, now - 60, now + 60));
    assert!(!step_2(&secret, now - 120, now - 60));
    assert!(!step_2(&secret, now + 60, now + 120));
    assert!(!step_2(&AuthoritySecretKey::from_bytes(&[5; 32]).unwrap(), now - 60, now + 60));
}

#[test]
fn tampering_between_us_is_found_on_either_side() {
    for position in 0..ACT2_LEN {
        let (initiator, act1) = our_initiator();
        let (act2, _) = their_responder().step_1(act1).unwrap();
        let mut act2: [u8; ACT2_LEN] = act(&act2);
        act2[position] ^= 4;
        assert!(initiator.finish(&act2, Some(&authority()), now(), DRIFT).is_err(), "byte {position}");

        let (act1, initiator) = their_initiator().step_0().unwrap();
        let (mut act2, _) = our_answer(&act(&act1), &SECRET.parse().unwrap(), now() - 60, now() + 60);
        act2[position] ^= 4;
        assert!(initiator.step_2(act2).is_err(), "byte {position}");
    }
}
