//! Any frames, cut anywhere: what goes in comes out, and nothing stays behind.
#![cfg(feature = "noise")]
#![allow(clippy::unwrap_used, reason = "a test may panic, also outside its #[test] function")]

use std::collections::VecDeque;

use adit_codec::{
    frame::FrameHeader,
    keys::{AuthoritySecretKey, StaticKeyPair},
    noise::{
        ACT2_LEN, Aead, AeadBackend, DeframeError, EphemeralKey, Initiator, OpenError, Responder, SealError,
        Sealer, SecureDeframer, SpareBuffers, Transport, sealed_len,
    },
};
use proptest::{collection::vec, prelude::*, sample::Index, sample::select};

/// What this CPU can encrypt with.
fn aead() -> impl Strategy<Value = Aead> {
    select(AeadBackend::ALL.into_iter().filter_map(Aead::forced).collect::<Vec<_>>())
}

/// Two ends, and what each encrypts with.
fn pair(one: Aead, other: Aead) -> (Transport, Transport) {
    let authority = AuthoritySecretKey::from_bytes(&[0x11; 32]).unwrap();
    let static_key = StaticKeyPair::new(&[0x22; 64]).unwrap();
    let certificate = authority.certify(static_key.public_key(), 0, u32::MAX, &[0x33; 32]);
    let (initiator, act1) = Initiator::new(EphemeralKey::new(&[0x44; 64]).unwrap());
    let mut act2 = [0; ACT2_LEN];
    let ephemeral = EphemeralKey::new(&[0x55; 64]).unwrap();
    let mut responding = Responder::respond(&act1, &static_key, &certificate, ephemeral, &mut act2);
    let mut initiating = initiator.finish(&act2, Some(&authority.public_key()), 1, 0).unwrap();
    initiating.set_aead(one);
    responding.set_aead(other);
    (initiating, responding)
}

/// Mostly small frames, some around the chunks' edges.
fn payload_len() -> impl Strategy<Value = usize> {
    prop_oneof![20 => 0..80_usize, 10 => 80..300_usize, 2 => 65_510..65_530_usize, 1 => 131_030..131_050_usize]
}

/// Lengths of the pieces in which the stream arrives: the usual ones and tiny ones.
fn cuts() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![3 => 1..40_usize, 3 => 40..5000_usize, 1 => 5000..100_000_usize], 1..40)
}

type Frames = Vec<(FrameHeader, Vec<u8>)>;

/// How a receiver takes frames.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Taking {
    /// Opened one by one.
    Single,
    /// Opened ahead of their turn, as many as the kernel takes.
    Ahead,
    /// Opened further ahead, and looked at before they are taken.
    Shown,
}

const TAKING: [Taking; 3] = [Taking::Single, Taking::Ahead, Taking::Shown];

/// The frames that came out, and the error at which it stopped.
fn receive(
    deframer: &mut SecureDeframer,
    stream: &mut [u8],
    cuts: &[usize],
    taking: Taking,
) -> (Frames, Option<DeframeError>) {
    let mut received = Frames::new();
    let mut spares = SpareBuffers::new(1);
    let mut cuts = cuts.iter().cycle();
    let mut rest = stream;
    while !rest.is_empty() {
        let (mut piece, after) = rest.split_at_mut(rest.len().min(*cuts.next().unwrap()));
        rest = after;
        let error = if taking != Taking::Single {
            let mut frames = deframer.frames(piece);
            let mut shown = VecDeque::new();
            loop {
                if taking == Taking::Shown {
                    let opened = frames.open_ahead(&mut spares);
                    shown.extend(opened.map(|(header, payload)| (header, payload.to_vec())));
                }
                match frames.next_frame(&mut spares) {
                    Ok(Some((header, payload))) => {
                        if let Some(shown) = shown.pop_front() {
                            assert_eq!((header, payload), (shown.0, &shown.1[..]));
                        }
                        received.push((header, payload.to_vec()));
                    }
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            }
        } else {
            loop {
                match deframer.next_frame_with(&mut piece, &mut spares) {
                    Ok(Some((header, payload))) => received.push((header, payload.to_vec())),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            }
        };
        if error.is_some() {
            return (received, error);
        }
    }
    (received, None)
}

fn sealed_stream(transport: &mut Transport, lens: &[usize]) -> (Frames, Vec<u8>) {
    let mut frames = Frames::new();
    let mut stream = Vec::new();
    for (i, &len) in lens.iter().enumerate() {
        let header = FrameHeader {
            extension_type: i as u16 & 0x7fff,
            channel_msg: i % 2 == 0,
            msg_type: i as u8,
            payload_len: len as u32,
        };
        let payload: Vec<u8> = (0..len).map(|byte| (byte * 13 + i) as u8).collect();
        let start = stream.len();
        stream.resize(start + sealed_len(len), 0);
        let plain = [&header.to_bytes(), &payload[..]].concat();
        transport.sealer.seal_frame_into(&plain, &mut stream[start..]).unwrap();
        frames.push((header, payload));
    }
    (frames, stream)
}

/// What is laid out and sealed together is what is sealed one after the other.
fn check_placed(sealing: Aead, lens: &[usize]) {
    let (mut one_by_one, _) = pair(sealing, sealing);
    let (frames, expected) = sealed_stream(&mut one_by_one, lens);
    let (mut together, _) = pair(sealing, sealing);
    let mut stream = Vec::new();
    for (header, payload) in frames {
        let plain = [&header.to_bytes(), &payload[..]].concat();
        let start = stream.len();
        stream.resize(start + sealed_len(payload.len()), 0);
        assert_eq!(Sealer::place_frame(&plain, &mut stream[start..]), Ok(stream.len() - start));
    }
    assert_eq!(together.sealer.seal_placed(&mut stream), Ok(()));
    assert!(stream == expected);
}

#[test]
fn frames_that_are_laid_out_are_sealed_together() {
    for aead in AeadBackend::ALL.into_iter().filter_map(Aead::forced) {
        for count in 0..=20 {
            check_placed(aead, &vec![24; count]);
        }
        for len in [0, 64, 65, 300, 65_519, 65_520, 131_038, 131_039] {
            check_placed(aead, &[24, 24, 24, 24, len, 24, len, len, 24, 24, 24, 24, 24, 24, 24, 24, 24]);
        }
    }
}

#[test]
fn what_is_no_frame_is_not_laid_out() {
    let frame = |stated: u32, len: usize| {
        let header = FrameHeader { extension_type: 0, channel_msg: false, msg_type: 1, payload_len: stated };
        [&header.to_bytes(), &vec![0; len][..]].concat()
    };
    let mut out = [0; 100];
    assert_eq!(Sealer::place_frame(&[0; 5], &mut out), Err(SealError::Frame { frame_len: 5 }));
    assert_eq!(Sealer::place_frame(&frame(24, 23), &mut out), Err(SealError::Frame { frame_len: 29 }));
    let room = SealError::Room { needed: sealed_len(63), found: 100 };
    assert_eq!(Sealer::place_frame(&frame(63, 63), &mut out), Err(room));
    let (mut one, _) = pair(Aead::detect(), Aead::detect());
    let mut placed = [0; 200];
    let len = Sealer::place_frame(&frame(24, 24), &mut placed).unwrap();
    let room = SealError::Room { needed: len, found: len - 1 };
    assert_eq!(one.sealer.seal_placed(&mut placed[..len - 1]), Err(room));
    assert_eq!(one.sealer.seal_placed(&mut [0; 3]), Err(SealError::Frame { frame_len: 3 }));
}

/// Whoever drops frames that are open already would lose them: nothing opens afterwards.
#[test]
fn frames_dropped_early_end_the_stream() {
    for aead in AeadBackend::ALL.into_iter().filter_map(Aead::forced) {
        for (taken, is_shown) in (0..=20).flat_map(|taken| [(taken, false), (taken, true)]) {
            let (mut one, other) = pair(aead, aead);
            let (sent, mut stream) = sealed_stream(&mut one, &[24; 20]);
            let mut deframer = SecureDeframer::new(other.opener, 100);
            let mut spares = SpareBuffers::new(0);
            let mut frames = deframer.frames(&mut stream);
            if is_shown {
                // With lanes all 20 are open then, of which none must get lost either.
                let shown = frames.open_ahead(&mut spares).count();
                assert!(shown == 0 || shown >= 16, "{shown} of 20 frames were opened ahead");
            }
            for (header, payload) in &sent[..taken] {
                assert_eq!(frames.next_frame(&mut spares), Ok(Some((*header, &payload[..]))));
            }
            drop(frames);
            let (_, mut more) = sealed_stream(&mut one, &[24]);
            let result = deframer.next_frame(&mut &mut more[..]).map(|frame| frame.is_some());
            let (lost, poisoned) = (OpenError::Tag, OpenError::Poisoned);
            match taken {
                20 => assert_eq!(result, Ok(true)),
                _ => assert!(result == Err(lost.into()) || result == Err(poisoned.into()), "{result:?}"),
            }
        }
    }
}

/// A frame over the limit behind others: they come out, then the error.
#[test]
fn a_limit_holds_for_frames_opened_ahead() {
    for aead in AeadBackend::ALL.into_iter().filter_map(Aead::forced) {
        for (long_at, taking) in (0..12).flat_map(|at| TAKING.map(|taking| (at, taking))) {
            let (mut one, other) = pair(aead, aead);
            let mut lens = [24; 12];
            lens[long_at] = 31;
            let (sent, mut stream) = sealed_stream(&mut one, &lens);
            let mut deframer = SecureDeframer::new(other.opener, 30);
            let (received, error) = receive(&mut deframer, &mut stream, &[10_000], taking);
            assert_eq!(received, sent[..long_at]);
            let header = sent[long_at].0;
            assert_eq!(error, Some(DeframeError::PayloadTooLong { header, payload_len_max: 30 }));
            assert_eq!(deframer.next_frame(&mut &mut [0; 30][..]), Err(OpenError::Poisoned.into()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn what_goes_in_comes_out(
        lens in vec(payload_len(), 1..40),
        cuts in cuts(),
        sealing in aead(),
        opening in aead(),
        taking in select(&TAKING[..]),
    ) {
        check_placed(sealing, &lens);
        let (mut one, other) = pair(sealing, opening);
        let (frames, mut stream) = sealed_stream(&mut one, &lens);
        let mut deframer = SecureDeframer::new(other.opener, 200_000);
        let (received, error) = receive(&mut deframer, &mut stream, &cuts, taking);
        prop_assert_eq!(error, None);
        prop_assert!(received == frames);
        prop_assert_eq!(deframer.buffered_len(), 0);
    }

    /// One changed bit: all frames before it come out, none from it on.
    #[test]
    fn a_changed_bit_ends_the_stream(
        lens in vec(payload_len(), 1..30),
        cuts in cuts(),
        position in any::<Index>(),
        bit in 0..8_u32,
        aead in aead(),
        taking in select(&TAKING[..]),
    ) {
        let (mut one, other) = pair(aead, aead);
        let (frames, mut stream) = sealed_stream(&mut one, &lens);
        let position = position.index(stream.len());
        stream[position] ^= 1_u8 << bit;
        let mut whole = 0;
        let mut end = 0;
        while end + sealed_len(lens[whole]) <= position {
            end += sealed_len(lens[whole]);
            whole += 1;
        }
        let mut deframer = SecureDeframer::new(other.opener, 200_000);
        let (received, error) = receive(&mut deframer, &mut stream, &cuts, taking);
        prop_assert_eq!(error, Some(DeframeError::Open(OpenError::Tag)));
        prop_assert!(received == frames[..whole]);
    }
}
