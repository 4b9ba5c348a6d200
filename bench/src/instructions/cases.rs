//! What is counted, boundary by boundary. A case counts one batch of what it names, after one like it that is not counted:
//! memory is warm then, as in a pool that has run for a moment.

use std::hint::black_box;

use adit_aead::{Aead, Backend as AeadBackend};
use adit_codec::frame::HEADER_LEN;
use adit_codec::keys::{AuthoritySecretKey, Certificate, StaticKeyPair};
use adit_codec::message::{
    Message, NewExtendedMiningJob, Protocol, SubmitSharesExtended, SubmitSharesStandard, SubmitSharesSuccess,
};
use adit_codec::noise::{
    ACT2_LEN, EphemeralKey, FRAME_OFFSET, Initiator, Responder, SecureDeframer, SpareBuffers, Transport,
    sealed_len,
};
use adit_codec::{Encode, encode_frame, frame_len};
use adit_engine::EngineLimits;
use adit_engine::transport::SocketId;
use adit_hasher::{Backend, BatchHash, CoinbaseJob, Digest, Hasher, HeaderBytes, Target};

use super::counted_region;
use crate::detached::{World, work};
use crate::plain::{PlainServer, REQUIRES_STANDARD_JOBS, frame};

/// Frames, messages, connections or shares of a case.
const BATCH: usize = 64;

/// Levels of merkle path: a block of some thousand transactions.
const DEPTH: usize = 12;

/// One case.
pub struct Case {
    /// Its name in the record.
    pub name: String,
    run: Box<dyn Fn() -> Option<()>>,
}

impl Case {
    /// Prepares the case and runs its [`counted_region`] once; `None` if the CPU cannot.
    #[must_use]
    pub fn run(&self) -> Option<()> {
        (self.run)()
    }
}

/// Kernels that every CPU has, and those that valgrind can emulate.
const KERNELS: [(&str, Backend, AeadBackend); 2] =
    [("portable", Backend::Portable, AeadBackend::Ring), ("avx2", Backend::Avx2, AeadBackend::Avx2)];

/// All cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: String, run: Box<dyn Fn() -> Option<()>>| {
        cases.push(Case { name, run });
    };
    add("noise: respond to a handshake".into(), Box::new(respond));
    for backend in [AeadBackend::Ring, AeadBackend::Avx2] {
        add(format!("frames: open {BATCH} shares, {backend}"), Box::new(move || open(backend)));
        add(format!("frames: seal {BATCH} answers, {backend}"), Box::new(move || seal(backend)));
    }
    add(format!("messages: decode {BATCH} SubmitSharesStandard"), Box::new(|| decode(&STANDARD)));
    add(format!("messages: decode {BATCH} SubmitSharesExtended"), Box::new(|| decode(&EXTENDED)));
    add(format!("messages: decode {BATCH} NewExtendedMiningJob"), Box::new(|| decode(&job())));
    add(format!("messages: encode {BATCH} SubmitShares.Success"), Box::new(|| encode(&SUCCESS)));
    add(format!("messages: encode {BATCH} NewExtendedMiningJob"), Box::new(|| encode(&job())));
    for backend in [Backend::Portable, Backend::Avx2] {
        for size in [1, BATCH] {
            add(format!("hasher: {size} headers, {backend}"), Box::new(move || headers(backend, size)));
            add(
                format!("hasher: {size} merkle roots of depth {DEPTH}, {backend}"),
                Box::new(move || merkle_roots(backend, size)),
            );
        }
    }
    add(format!("server: {BATCH} standard shares, no hash"), Box::new(|| judge(false)));
    add(format!("server: {BATCH} extended shares, no hash"), Box::new(|| judge(true)));
    for (jobs, flags) in [("group", 0), ("standard", REQUIRES_STANDARD_JOBS)] {
        add(
            format!("server: tip to {BATCH} connections, {jobs} jobs, no hash"),
            Box::new(move || announce(flags)),
        );
    }
    for (kernels, hasher, aead) in KERNELS {
        add(
            format!("shard: tip to {BATCH} connections, group jobs, {kernels}"),
            Box::new(move || tip(hasher, aead, 0)),
        );
        add(
            format!("shard: tip to {BATCH} connections, standard jobs, {kernels}"),
            Box::new(move || tip(hasher, aead, REQUIRES_STANDARD_JOBS)),
        );
        add(
            format!("shard: tick of {BATCH} standard shares, {kernels}"),
            Box::new(move || tick(hasher, aead, false, BATCH)),
        );
        add(
            format!("shard: tick of {BATCH} extended shares, {kernels}"),
            Box::new(move || tick(hasher, aead, true, BATCH)),
        );
        add(
            format!("shard: tick of {BATCH} extended shares of one proxy, {kernels}"),
            Box::new(move || tick(hasher, aead, true, 1)),
        );
    }
    cases
}

const STANDARD: SubmitSharesStandard = SubmitSharesStandard {
    channel_id: 64,
    sequence_number: 7,
    job_id: 9,
    nonce: 0x1234_5678,
    ntime: 1_790_000_000,
    version: 0x2000_0000,
};

const EXTENDED: SubmitSharesExtended<'static> = SubmitSharesExtended {
    channel_id: 64,
    sequence_number: 7,
    job_id: 9,
    nonce: 0x1234_5678,
    ntime: 1_790_000_000,
    version: 0x2000_0000,
    extranonce: &[7; 8],
};

const SUCCESS: SubmitSharesSuccess = SubmitSharesSuccess {
    channel_id: 64,
    last_sequence_number: 7,
    new_submits_accepted_count: 1,
    new_shares_sum: 1_000,
};

fn job() -> NewExtendedMiningJob<'static> {
    const PATH: [[u8; 32]; DEPTH] = [[5; 32]; DEPTH];
    NewExtendedMiningJob {
        channel_id: 16,
        job_id: 9,
        min_ntime: None,
        version: 0x2000_0000,
        version_rolling_allowed: true,
        merkle_path: PATH[..].into(),
        coinbase_tx_prefix: &[1; 64],
        coinbase_tx_suffix: &[2; 120],
    }
}

fn identity() -> (StaticKeyPair, Certificate) {
    let static_key = StaticKeyPair::new(&[2; 64]).expect("a valid secret");
    let authority = AuthoritySecretKey::from_bytes(&[7; 32]).expect("a valid secret");
    let certificate = authority.certify(static_key.public_key(), 0, u32::MAX, &[3; 32]);
    (static_key, certificate)
}

fn ephemeral(first: u8) -> EphemeralKey {
    let mut random = [0x41; 64];
    random[0] = first;
    EphemeralKey::new(&random).expect("a valid secret")
}

fn respond() -> Option<()> {
    let (static_key, certificate) = identity();
    let (_, act1) = Initiator::new(ephemeral(1));
    let mut act2 = [0; ACT2_LEN];
    let mut once = || {
        let transport = Responder::respond(&act1, &static_key, &certificate, ephemeral(2), &mut act2);
        black_box(transport);
    };
    once();
    counted_region(&mut once);
    Some(())
}

/// The client's and the server's end of a connection.
fn session(aead: Aead) -> (Transport, Transport) {
    let (static_key, certificate) = identity();
    let (initiator, act1) = Initiator::new(ephemeral(1));
    let mut act2 = [0; ACT2_LEN];
    let mut server = Responder::respond(&act1, &static_key, &certificate, ephemeral(2), &mut act2);
    let mut client = initiator.finish(&act2, None, 1, 0).expect("our own certificate");
    server.set_aead(aead);
    client.set_aead(aead);
    (client, server)
}

/// Frames that one received buffer brings.
fn open(backend: AeadBackend) -> Option<()> {
    let (mut client, server) = session(Aead::forced(backend)?);
    let mut deframer = SecureDeframer::new(server.opener, 1 << 16);
    let mut spares = SpareBuffers::new(0);
    let share = frame(&STANDARD);
    let sealed_len = sealed_len(share.len() - HEADER_LEN);
    let mut received = vec![vec![0; BATCH * sealed_len]; 2];
    for out in received.iter_mut().flat_map(|buffer| buffer.chunks_mut(sealed_len)) {
        client.sealer.seal_frame_into(&share, out).expect("room and nonces");
    }
    let mut buffers = received.iter_mut();
    let mut once = || {
        let Some(buffer) = buffers.next() else { return };
        let mut frames = deframer.frames(buffer);
        while let Some(frame) = frames.next_frame(&mut spares).expect("untouched frames") {
            black_box(frame);
        }
    };
    once();
    counted_region(&mut once);
    Some(())
}

fn seal(backend: AeadBackend) -> Option<()> {
    let (_, mut server) = session(Aead::forced(backend)?);
    let answer = frame(&SUCCESS);
    let mut out = vec![0; sealed_len(answer.len() - HEADER_LEN)];
    let mut once = || {
        for _ in 0..BATCH {
            out[FRAME_OFFSET..FRAME_OFFSET + answer.len()].copy_from_slice(black_box(&answer));
            server.sealer.seal_frame(&mut out, answer.len()).expect("room and nonces");
            black_box(&mut out);
        }
    };
    once();
    counted_region(&mut once);
    Some(())
}

fn decode<M: Encode>(message: &M) -> Option<()> {
    let frame = frame(message);
    let payload = &frame[HEADER_LEN..];
    let header = M::KIND.header(payload.len() as u32);
    let mut once = || {
        for _ in 0..BATCH {
            let decoded = Message::decode(black_box(header), black_box(payload), Protocol::Mining);
            assert!(black_box(&decoded).is_ok());
        }
    };
    once();
    counted_region(&mut once);
    Some(())
}

fn encode<M: Encode>(message: &M) -> Option<()> {
    let mut out = vec![0; frame_len(message)];
    let mut once = || {
        for _ in 0..BATCH {
            encode_frame(black_box(message), black_box(&mut out)).expect("room for the frame");
        }
    };
    once();
    counted_region(&mut once);
    Some(())
}

fn headers(backend: Backend, size: usize) -> Option<()> {
    let hasher = Hasher::forced(backend)?;
    let headers: Vec<[u8; 80]> = (0..size).map(|i| [i as u8; 80]).collect();
    let mut digests = vec![Digest::default(); size];
    let mut once = || {
        hasher.header_digests(black_box(&headers), &mut digests);
        black_box(&mut digests);
    };
    once();
    counted_region(&mut once);
    Some(())
}

fn merkle_roots(backend: Backend, size: usize) -> Option<()> {
    const EXTRANONCE_LEN: usize = 16;
    let hasher = Hasher::forced(backend)?;
    let path = [[3; 32]; DEPTH];
    let job = CoinbaseJob::new(&[1; 102], EXTRANONCE_LEN, &[2; 125], &path).expect("within the limits");
    let extranonces: Vec<u8> = (0..size * EXTRANONCE_LEN).map(|i| i as u8).collect();
    let mut roots = vec![[0; 32]; size];
    let mut once = || {
        hasher.merkle_roots(&job, black_box(&extranonces), &mut roots);
        black_box(&mut roots);
    };
    once();
    counted_region(&mut once);
    Some(())
}

/// Costs next to nothing, so that what the server itself does is not lost in its hashes. Different nonces and different
/// extranonces give different digests, none of which is a block.
struct NoHash;

impl BatchHash for NoHash {
    fn merkle_roots(&self, job: &CoinbaseJob, extranonces: &[u8], roots: &mut [[u8; 32]]) {
        for (root, extranonce) in roots.iter_mut().zip(extranonces.chunks_exact(job.extranonce_len())) {
            root[..extranonce.len()].copy_from_slice(extranonce);
        }
    }

    fn header_digests(&self, headers: &[HeaderBytes], digests: &mut [Digest]) {
        for (digest, header) in digests.iter_mut().zip(headers) {
            let nonce = u32::from_le_bytes([header[76], header[77], header[78], header[79]]);
            let spread = u64::from(nonce).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 63;
            *digest.0.last_chunk_mut().expect("32 bytes") = spread.to_le_bytes();
            *digest.0.first_chunk_mut().expect("32 bytes") = spread.to_le_bytes();
        }
    }

    fn scan_nonces(&self, _: &HeaderBytes, _: u32, _: u32, _: &Target, _: &mut Vec<u32>, _: usize) -> u32 {
        0
    }
}

/// Shares from frame to answer, without opening and sealing, each of another connection.
fn judge(is_extended: bool) -> Option<()> {
    let mut server = PlainServer::new(NoHash, DEPTH);
    let flags = if is_extended { 0 } else { REQUIRES_STANDARD_JOBS };
    let channels: Vec<_> = (0..BATCH).map(|_| server.open(flags, is_extended)).collect();
    for number in 1..4 {
        let shares: Vec<_> = channels.iter().map(|channel| channel.share(number)).collect();
        let mut once = || {
            for (channel, share) in channels.iter().zip(&shares) {
                server.receive_share(channel, share);
            }
            server.settle();
        };
        if number < 3 {
            once();
        } else {
            counted_region(&mut once);
        }
        server.forget_frames();
    }
    assert_eq!(server.server.counters().shares_accepted, 3 * BATCH as u64);
    Some(())
}

/// A template and its tip, announced without sealing.
fn announce(flags: u32) -> Option<()> {
    let mut server = PlainServer::new(NoHash, DEPTH);
    for _ in 0..BATCH {
        server.open(flags, false);
    }
    for template_id in 2..6 {
        let mut once = || {
            server.take_work(template_id);
            server.fan_out();
        };
        if template_id < 5 {
            once();
        } else {
            counted_region(&mut once);
        }
        assert_eq!(server.out.frames().count(), 2 * BATCH, "a job and a tip for each connection");
        server.forget_frames();
    }
    Some(())
}

/// A shard and its connections, one channel each.
fn world(hasher: Backend, aead: AeadBackend) -> Option<World> {
    let limits = EngineLimits { handshakes_per_second_max: u32::MAX, ..EngineLimits::default() };
    Some(World::empty(limits, Hasher::forced(hasher)?, Aead::forced(aead)?))
}

/// A template and its tip, announced and sealed.
fn tip(hasher: Backend, aead: AeadBackend, flags: u32) -> Option<()> {
    let mut world = world(hasher, aead)?;
    for socket in 0..BATCH as u32 {
        world.join(SocketId(socket), flags, 1);
    }
    let mut sent = Vec::with_capacity(2 * BATCH);
    for template_id in 2..4 {
        let (template, tip) = work(template_id);
        world.work_tick(&[template, tip], &mut sent);
        world.complete(&mut sent);
    }
    let (template, tip) = work(4);
    let updates = [template, tip];
    counted_region(&mut || world.work_tick(&updates, &mut sent));
    assert_eq!(sent.len(), BATCH, "one send for each connection");
    Some(())
}

/// Sealed shares in, sealed answers out, from so many connections.
fn tick(hasher: Backend, aead: AeadBackend, is_extended: bool, connections: usize) -> Option<()> {
    let mut world = world(hasher, aead)?;
    for socket in 0..connections as u32 {
        if is_extended {
            world.join_extended(SocketId(socket));
        } else {
            world.join(SocketId(socket), 0, 1);
        }
    }
    let mut received = vec![Vec::new(); connections];
    let mut sent = Vec::with_capacity(connections);
    let seal = |world: &mut World, received: &mut [Vec<u8>]| {
        for (client, bytes) in world.clients.iter_mut().zip(received) {
            bytes.clear();
            for _ in 0..BATCH / connections {
                client.share(bytes);
            }
        }
    };
    for _ in 0..2 {
        seal(&mut world, &mut received);
        world.share_tick(0, &mut received, &mut sent);
        world.complete(&mut sent);
    }
    seal(&mut world, &mut received);
    counted_region(&mut || world.share_tick(0, &mut received, &mut sent));
    assert_eq!(sent.len(), connections, "each connection is answered");
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different() {
        let cases = cases();
        let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), cases.len());
    }

    #[test]
    fn every_case_runs() {
        for case in cases() {
            // None where this CPU cannot.
            let _ = case.run();
        }
    }
}
