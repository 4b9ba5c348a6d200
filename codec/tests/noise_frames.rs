//! Sealing, opening and deframing between our two sides: sizes, splits, tampering, bounds.
#![cfg(feature = "noise")]
#![allow(clippy::unwrap_used, reason = "a test may panic, also outside its #[test] function")]

use adit_codec::{
    frame::FrameHeader,
    keys::{AuthoritySecretKey, StaticKeyPair},
    noise::{
        ACT2_LEN, CHUNK_LEN_MAX, DeframeError, EphemeralKey, FRAME_OFFSET, Initiator, OpenError, Responder,
        SEALED_CHUNK_LEN_MAX, SEALED_HEADER_LEN, SealError, Sealer, SecureDeframer, SpareBuffers, Transport,
        sealed_len, sealed_payload_len,
    },
};

const PAYLOAD_LEN_MAX: u32 = (1 << 24) - 1;

/// What happens at each edge of the chunks.
const SIZES: [usize; 12] = [0, 1, 16, 17, 40, 65_518, 65_519, 65_520, 131_037, 131_038, 131_039, 200_000];

fn pair() -> (Transport, Transport) {
    let authority = AuthoritySecretKey::from_bytes(&[0x11; 32]).unwrap();
    let static_key = StaticKeyPair::new(&[0x22; 64]).unwrap();
    let certificate = authority.certify(static_key.public_key(), 0, u32::MAX, &[0x33; 32]);
    let (initiator, act1) = Initiator::new(EphemeralKey::new(&[0x44; 64]).unwrap());
    let mut act2 = [0; ACT2_LEN];
    let ephemeral = EphemeralKey::new(&[0x55; 64]).unwrap();
    let responding = Responder::respond(&act1, &static_key, &certificate, ephemeral, &mut act2);
    let initiating = initiator.finish(&act2, Some(&authority.public_key()), 1, 0).unwrap();
    (initiating, responding)
}

fn frame(msg_type: u8, payload_len: usize) -> Vec<u8> {
    let header =
        FrameHeader { extension_type: 0, channel_msg: true, msg_type, payload_len: payload_len as u32 };
    let mut frame = header.to_bytes().to_vec();
    frame.extend((0..payload_len).map(|i| (i * 7 + i / 251) as u8 ^ msg_type));
    frame
}

fn sealed(sealer: &mut Sealer, frame: &[u8]) -> Vec<u8> {
    let mut out = vec![0; sealed_len(frame.len() - 6)];
    assert_eq!(sealer.seal_frame_into(frame, &mut out), Ok(out.len()));
    out
}

/// The whole frames that come out when `stream` arrives cut into pieces of the given lengths, over and over.
fn deframe(
    deframer: &mut SecureDeframer,
    stream: &mut [u8],
    cuts: &[usize],
    spares: &mut SpareBuffers,
) -> Result<Vec<Vec<u8>>, DeframeError> {
    let mut frames = Vec::new();
    let mut cuts = cuts.iter().cycle();
    let mut rest = stream;
    while !rest.is_empty() {
        let (mut piece, after) = rest.split_at_mut(rest.len().min(*cuts.next().unwrap()));
        rest = after;
        while let Some((header, payload)) = deframer.next_frame_with(&mut piece, spares)? {
            assert_eq!(payload.len(), header.payload_len as usize);
            frames.push([&header.to_bytes(), payload].concat());
        }
        assert!(piece.is_empty());
    }
    Ok(frames)
}

#[test]
fn sealed_lengths_are_the_specifications() {
    // pt_len_to_ct_len of spec 4.6, as it is written there.
    let specified = |len: usize| match len % 65_519 {
        0 => len / 65_519 * 65_535,
        remainder => len / 65_519 * 65_535 + remainder + 16,
    };
    for len in (0..400_000).step_by(61).chain(SIZES) {
        assert_eq!(sealed_payload_len(len), specified(len));
        assert_eq!(sealed_len(len), 22 + specified(len));
    }
    assert_eq!((CHUNK_LEN_MAX, SEALED_CHUNK_LEN_MAX, SEALED_HEADER_LEN), (65_519, 65_535, 22));
}

#[test]
fn every_size_passes_both_ways_sealed_either_way() {
    let (mut one, mut other) = pair();
    for round in 0..2 {
        for len in SIZES {
            let plain = frame(round, len);
            let mut copied = sealed(&mut one.sealer, &plain);
            let (header, payload) = copied.split_first_chunk_mut().unwrap();
            assert_eq!(other.opener.open_header(header).unwrap().to_bytes(), plain[..6]);
            assert_eq!(other.opener.open_payload(payload), Ok(len));
            assert_eq!(payload[..len], plain[6..]);

            let mut buffer = vec![0xee; sealed_len(len) + 3];
            buffer[FRAME_OFFSET..FRAME_OFFSET + plain.len()].copy_from_slice(&plain);
            let sealed_len = other.sealer.seal_frame(&mut buffer, plain.len()).unwrap();
            assert_eq!(buffer[sealed_len..], [0xee; 3]);
            let (header, payload) = buffer[..sealed_len].split_first_chunk_mut().unwrap();
            assert_eq!(one.opener.open_header(header).unwrap().to_bytes(), plain[..6]);
            assert_eq!(one.opener.open_payload(payload), Ok(len));
            assert_eq!(payload[..len], plain[6..]);
        }
    }
}

#[test]
fn both_ways_of_sealing_give_the_same_bytes() {
    for len in SIZES {
        let plain = frame(3, len);
        let copied = sealed(&mut pair().0.sealer, &plain);
        let mut buffer = vec![0; sealed_len(len)];
        buffer[FRAME_OFFSET..FRAME_OFFSET + plain.len()].copy_from_slice(&plain);
        pair().0.sealer.seal_frame(&mut buffer, plain.len()).unwrap();
        assert!(copied == buffer, "{len}");
    }
}

#[test]
fn a_refused_seal_changes_nothing() {
    let (mut one, mut other) = pair();
    let plain = frame(1, 100);
    let mut out = vec![0xaa; 200];
    for frame_len in 0..6 {
        assert_eq!(one.sealer.seal_frame(&mut out, frame_len), Err(SealError::Frame { frame_len }));
        assert_eq!(
            one.sealer.seal_frame_into(&plain[..frame_len], &mut out),
            Err(SealError::Frame { frame_len })
        );
    }
    for found in [0, 5, 16, 21, 22, 137] {
        let error = Err(SealError::Room { needed: 138, found });
        assert_eq!(one.sealer.seal_frame_into(&plain, &mut out[..found]), error);
        assert_eq!(one.sealer.seal_frame(&mut out[..found], plain.len()), error);
    }
    assert_eq!(one.sealer.seal_frame_into(&plain[..105], &mut out), Err(SealError::Frame { frame_len: 105 }));
    let mut sealed = sealed(&mut one.sealer, &plain);
    assert!(other.opener.open_header(sealed.first_chunk_mut().unwrap()).is_ok());
}

#[test]
fn a_ciphertext_of_impossible_length_is_refused() {
    for len in [1, 15, 16, 65_536, 65_551, 131_086] {
        let (_, mut other) = pair();
        let error =
            if len <= 16 || len > SEALED_CHUNK_LEN_MAX { OpenError::Length { len } } else { OpenError::Tag };
        assert_eq!(other.opener.open_payload(&mut vec![0; len]), Err(error), "{len}");
        assert_eq!(other.opener.open_payload(&mut []), Ok(0));
        assert_eq!(other.opener.open_header(&mut [0; 22]), Err(OpenError::Poisoned));
    }
}

#[test]
fn every_changed_byte_of_a_frame_is_found_and_ends_the_stream() {
    let plain = frame(1, 40);
    for position in 0..sealed_len(40) {
        for cut in [7, 1000] {
            let (mut one, other) = pair();
            let mut stream = sealed(&mut one.sealer, &plain);
            stream[position] ^= 0x10;
            let mut good = sealed(&mut one.sealer, &plain);
            let mut deframer = SecureDeframer::new(other.opener, PAYLOAD_LEN_MAX);
            let mut spares = SpareBuffers::new(1);
            let tag = DeframeError::Open(OpenError::Tag);
            assert_eq!(deframe(&mut deframer, &mut stream, &[cut], &mut spares), Err(tag), "byte {position}");
            let poisoned = DeframeError::Open(OpenError::Poisoned);
            assert_eq!(deframe(&mut deframer, &mut good, &[cut], &mut spares), Err(poisoned));
            assert_eq!(deframer.next_frame(&mut &mut [][..]), Err(poisoned));
        }
    }
}

/// A chunk that was changed, taken away, repeated or moved; the plaintext of the good ones stays unseen too.
#[test]
fn chunks_cannot_be_changed_or_moved() {
    let plain = frame(1, 3 * CHUNK_LEN_MAX);
    let chunk = |i: usize| SEALED_HEADER_LEN + i * SEALED_CHUNK_LEN_MAX;
    type Edit = fn(&mut Vec<u8>, &dyn Fn(usize) -> usize);
    let edits: [Edit; 3] = [
        |bytes, chunk| bytes[chunk(1) + 5] ^= 1,
        |bytes, chunk| {
            let (first, second) = bytes[chunk(0)..].split_at_mut(SEALED_CHUNK_LEN_MAX);
            first.swap_with_slice(&mut second[..SEALED_CHUNK_LEN_MAX]);
        },
        |bytes, chunk| bytes.copy_within(chunk(0)..chunk(1), chunk(1)),
    ];
    for edit in edits {
        for cut in [5000, 1 << 20] {
            let (mut one, other) = pair();
            let mut stream = sealed(&mut one.sealer, &plain);
            edit(&mut stream, &chunk);
            let mut deframer = SecureDeframer::new(other.opener, PAYLOAD_LEN_MAX);
            let result = deframe(&mut deframer, &mut stream, &[cut], &mut SpareBuffers::new(0));
            assert_eq!(result, Err(DeframeError::Open(OpenError::Tag)));
        }
        let (mut one, mut other) = pair();
        let mut stream = sealed(&mut one.sealer, &plain);
        edit(&mut stream, &chunk);
        let (header, payload) = stream.split_first_chunk_mut().unwrap();
        other.opener.open_header(header).unwrap();
        assert_eq!(other.opener.open_payload(payload), Err(OpenError::Tag));
        assert!(payload.iter().all(|&byte| byte == 0), "plaintext is left behind");
    }
}

#[test]
fn a_repeated_or_missing_frame_is_found() {
    for keep in [&[0, 0][..], &[1], &[0, 2], &[0, 1, 0]] {
        let (mut one, other) = pair();
        let frames: Vec<_> = (0..3).map(|i| sealed(&mut one.sealer, &frame(i, 30))).collect();
        let mut stream = keep.iter().flat_map(|&i| frames[i].clone()).collect::<Vec<_>>();
        let mut deframer = SecureDeframer::new(other.opener, PAYLOAD_LEN_MAX);
        let result = deframe(&mut deframer, &mut stream, &[50], &mut SpareBuffers::new(0));
        assert_eq!(result, Err(DeframeError::Open(OpenError::Tag)), "{keep:?}");
    }
}

#[test]
fn a_payload_over_the_limit_is_refused_after_its_header() {
    for cut in [1, 21, 22] {
        for (payload_len, fits) in [(1000, true), (1001, false), (PAYLOAD_LEN_MAX as usize, false)] {
            let (mut one, other) = pair();
            let mut stream = sealed(&mut one.sealer, &frame(0x20, payload_len));
            let mut deframer = SecureDeframer::new(other.opener, 1000);
            let mut spares = SpareBuffers::new(0);
            // The header alone.
            let result = deframe(&mut deframer, &mut stream[..22], &[cut], &mut spares);
            if fits {
                assert_eq!(result, Ok(vec![]));
                assert_eq!(deframe(&mut deframer, &mut stream[22..], &[cut], &mut spares).unwrap().len(), 1);
                continue;
            }
            let header = FrameHeader {
                extension_type: 0,
                channel_msg: true,
                msg_type: 0x20,
                payload_len: payload_len as u32,
            };
            let error = DeframeError::PayloadTooLong { header, payload_len_max: 1000 };
            assert_eq!(result, Err(error));
            assert_eq!(
                error.to_string(),
                format!("a message of type 0x20 announces {payload_len} bytes of payload, at most 1000")
            );
            assert_eq!(
                deframer.next_frame(&mut &mut stream[22..80]),
                Err(DeframeError::Open(OpenError::Poisoned))
            );
        }
    }
}

#[test]
fn an_announced_payload_takes_no_memory_before_it_arrives() {
    let (mut one, other) = pair();
    let mut stream = sealed(&mut one.sealer, &frame(1, 16_000_000));
    let mut deframer = SecureDeframer::new(other.opener, PAYLOAD_LEN_MAX);
    let mut spares = SpareBuffers::new(1);
    deframe(&mut deframer, &mut stream[..22 + 300], &[400], &mut spares).unwrap();
    assert_eq!(deframer.buffered_len(), 300);
    let frames = deframe(&mut deframer, &mut stream[22 + 300..], &[16_000], &mut spares).unwrap();
    assert!(frames[0] == frame(1, 16_000_000));
    assert_eq!(deframer.next_frame(&mut &mut [][..]), Ok(None));
    assert_eq!(deframer.buffered_len(), 0);
}

/// A frame that lies whole in the input is read there; only what is cut off is copied.
#[test]
fn whole_frames_are_read_where_they_lie() {
    let (mut one, other) = pair();
    let mut stream: Vec<u8> = (0..4).flat_map(|i| sealed(&mut one.sealer, &frame(i, 40))).collect();
    let range = stream.as_ptr_range();
    let mut deframer = SecureDeframer::new(other.opener, PAYLOAD_LEN_MAX);
    // Cut within the second frame's payload and within the last one's header.
    let cuts = [78 + 30, 3 * 78 + 10];
    let mut inside = Vec::new();
    let (first, rest) = stream.split_at_mut(cuts[0]);
    let (second, third) = rest.split_at_mut(cuts[1] - cuts[0]);
    for mut piece in [first, second, third] {
        while let Some((_, payload)) = deframer.next_frame(&mut piece).unwrap() {
            inside.push(range.contains(&payload.as_ptr()));
        }
        assert!(piece.is_empty());
    }
    // Of the last one only the header was cut, so its payload still lies whole.
    assert_eq!(inside, [true, false, true, true]);
    assert_eq!(deframer.buffered_len(), 0);
}

/// The caller may stop between frames and go on later with what is left.
#[test]
fn iteration_may_pause() {
    let (mut one, other) = pair();
    let mut stream: Vec<u8> = (0..5).flat_map(|i| sealed(&mut one.sealer, &frame(i, 9))).collect();
    let mut deframer = SecureDeframer::new(other.opener, PAYLOAD_LEN_MAX);
    let mut input = &mut stream[..];
    for msg_type in 0..5 {
        let (header, _) = deframer.next_frame(&mut input).unwrap().unwrap();
        assert_eq!(header.msg_type, msg_type);
        assert_eq!(input.len(), (4 - usize::from(msg_type)) * sealed_len(9));
    }
    assert_eq!(deframer.next_frame(&mut input), Ok(None));
}

#[test]
fn a_deframer_at_rest_is_small() {
    assert!(size_of::<SecureDeframer>() <= 64, "{}", size_of::<SecureDeframer>());
    let (_, other) = pair();
    let deframer = SecureDeframer::new(other.opener, 7);
    assert_eq!(format!("{deframer:?}"), "SecureDeframer { payload_len_max: 7, buffered_len: 0, .. }");
}

#[test]
fn spare_buffers_serve_several_connections_in_turn() {
    let mut spares = SpareBuffers::new(2);
    for round in 0..3 {
        let mut streams = Vec::new();
        for connection in 0..4 {
            let (mut one, other) = pair();
            let plain = frame(connection, 300 + round);
            let stream = sealed(&mut one.sealer, &plain);
            streams.push((SecureDeframer::new(other.opener, PAYLOAD_LEN_MAX), stream, plain));
        }
        // All of them have a part at the same time, then all the rest.
        for (deframer, stream, _) in &mut streams {
            assert_eq!(deframe(deframer, &mut stream[..100], &[60], &mut spares), Ok(vec![]));
        }
        for (deframer, stream, plain) in &mut streams {
            let frames = deframe(deframer, &mut stream[100..], &[60], &mut spares).unwrap();
            assert_eq!(&frames[..], std::slice::from_ref(plain));
            assert_eq!(deframer.next_frame_with(&mut &mut [][..], &mut spares), Ok(None));
            assert_eq!(deframer.buffered_len(), 0);
        }
        assert_eq!(format!("{spares:?}"), "SpareBuffers { count: 2, count_max: 2 }");
    }
}
