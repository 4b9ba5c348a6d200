//! Every refusal that a stranger can provoke, with its code, on the wire of a real pool.

use std::time::{Duration, Instant};

use adit_codec::message::{
    Message, OpenExtendedMiningChannel, OpenStandardMiningChannel, RequestExtensions, SetCustomMiningJob,
    SetupConnection, SubmitSharesExtended, SubmitSharesStandard, UpdateChannel,
};
use adit_codec::{Encode, encode_frame, frame_len};
use adit_hasher::{Digest, Target};
use adit_tests::peer::Peer;
use adit_tests::pool::Pool;

const PATIENCE: Duration = Duration::from_secs(60);
/// A hash rate so low that any hash is a share, and one so high that none is.
const EASY: f32 = 1e-3;
const HARD: f32 = 1e18;
const REQUIRES_STANDARD_JOBS: u32 = 0b001;
const REQUIRES_VERSION_ROLLING: u32 = 0b100;
/// Extension 0x0002, which names workers.
const WORKERS: u16 = 0x0002;
/// A version bit that BIP323 does not free, and one that it does.
const FIXED_BIT: u32 = 1 << 0;
const FREE_BIT: u32 = 1 << 10;

fn text(code: &[u8]) -> String {
    String::from_utf8(code.to_vec()).expect("codes are text")
}

fn setup(protocol: u8, versions: (u16, u16), flags: u32) -> SetupConnection<'static> {
    SetupConnection {
        protocol,
        min_version: versions.0,
        max_version: versions.1,
        flags,
        endpoint_host: b"localhost",
        endpoint_port: 3333,
        vendor: b"adit-tests",
        hardware_version: b"",
        firmware: b"",
        device_id: b"",
    }
}

/// The flags and the code with which a pool refuses a SetupConnection; it closes the connection then.
fn setup_refusal(pool: &Pool, message: &SetupConnection<'_>) -> (u32, String) {
    let mut peer = Peer::connect(&pool.url).expect("the pool shakes hands");
    peer.send(message).expect("the pool reads");
    let refusal = peer.receive_until(|message| match message {
        Message::SetupConnectionError(error) => Some((error.flags, text(error.error_code))),
        _ => None,
    });
    let refusal = refusal.expect("an answer");
    peer.wait_for_close();
    refusal
}

/// A channel and the work that its header is made of.
#[derive(Clone, Copy, Debug)]
struct Work {
    channel_id: u32,
    job_id: u32,
    version: u32,
    merkle_root: [u8; 32],
    prev_hash: [u8; 32],
    ntime: u32,
    nbits: u32,
}

impl Work {
    fn share(&self, nonce: u32) -> SubmitSharesStandard {
        SubmitSharesStandard {
            channel_id: self.channel_id,
            sequence_number: nonce,
            job_id: self.job_id,
            nonce,
            ntime: self.ntime,
            version: self.version,
        }
    }

    fn is_block(&self, nonce: u32) -> bool {
        let mut header = Vec::with_capacity(80);
        header.extend_from_slice(&self.version.to_le_bytes());
        header.extend_from_slice(&self.prev_hash);
        header.extend_from_slice(&self.merkle_root);
        header.extend_from_slice(&self.ntime.to_le_bytes());
        header.extend_from_slice(&self.nbits.to_le_bytes());
        header.extend_from_slice(&nonce.to_le_bytes());
        let target = Target::from_nbits(self.nbits).expect("the pool sends a target");
        target.is_met_by(&Digest::of(&header))
    }

    /// Nonces of this work that are blocks, or none: on regtest every second one is.
    fn nonces(&self, blocks: bool) -> impl Iterator<Item = u32> + '_ {
        (1..).filter(move |nonce| self.is_block(*nonce) == blocks)
    }
}

/// A client that mines on one standard channel, beside which it does everything wrong.
struct Client {
    peer: Peer,
    work: Work,
}

impl Client {
    fn start(pool: &Pool, hash_rate: f32) -> Self {
        let mut peer = Peer::set_up(&pool.url, REQUIRES_STANDARD_JOBS).expect("the pool accepts");
        peer.open_standard(1, b"refused", hash_rate).expect("the pool reads");
        let channel_id = peer.receive_until(|message| match message {
            Message::OpenStandardMiningChannelSuccess(success) => Some(success.channel_id),
            _ => None,
        });
        let work = receive_work(&mut peer, channel_id.expect("a channel"));
        Self { peer, work }
    }

    /// The code with which a share is refused; `None` if it is acknowledged.
    fn outcome<M: Encode>(&mut self, share: &M) -> Option<String> {
        self.peer.send(share).expect("the pool reads");
        answer(&mut self.peer)
    }
}

/// Receives a job and the tip that makes it active.
fn receive_work(peer: &mut Peer, channel_id: u32) -> Work {
    let (job_id, version, merkle_root) = peer
        .receive_until(|message| match message {
            Message::NewMiningJob(job) => Some((job.job_id, job.version, *job.merkle_root)),
            _ => None,
        })
        .expect("a job");
    let (prev_hash, ntime, nbits) = peer
        .receive_until(|message| match message {
            Message::SetNewPrevHash(tip) => Some((*tip.prev_hash, tip.min_ntime, tip.nbits)),
            _ => None,
        })
        .expect("a tip");
    Work { channel_id, job_id, version, merkle_root, prev_hash, ntime, nbits }
}

fn answer(peer: &mut Peer) -> Option<String> {
    let answer = peer.receive_until(|message| match message {
        Message::SubmitSharesError(error) => Some(Some(text(error.error_code))),
        Message::SubmitSharesSuccess(_) => Some(None),
        _ => None,
    });
    answer.expect("an answer")
}

fn code(code: &str) -> Option<String> {
    Some(code.to_owned())
}

#[test]
fn connections_are_refused_with_their_codes() {
    let pool = Pool::start("");
    let refusal = |protocol, versions, flags| setup_refusal(&pool, &setup(protocol, versions, flags));
    assert_eq!(refusal(1, (2, 2), 0), (0, "unsupported-protocol".to_owned()));
    assert_eq!(refusal(0, (3, 9), 0), (0b010, "protocol-version-mismatch".to_owned()));
    // Every flag that is not supported is listed.
    assert_eq!(refusal(0, (2, 2), 0b111_0110), (0b111_0010, "unsupported-feature-flags".to_owned()));
    pool.stop();

    let fixed = Pool::start("jobs.version_rolling = false");
    let refusal = setup_refusal(&fixed, &setup(0, (2, 2), REQUIRES_VERSION_ROLLING));
    assert_eq!(refusal, (0b110, "unsupported-feature-flags".to_owned()));
    let mut client = Client::start(&fixed, EASY);
    let share = client.work.share(1);
    let rolled = SubmitSharesStandard { version: share.version ^ FREE_BIT, ..share };
    assert_eq!(client.outcome(&rolled), code("version-rolling-not-allowed"));
    drop(client);
    fixed.stop();
}

#[test]
fn channels_and_requests_are_refused_with_their_codes() {
    let pool = Pool::start("limits.channels_per_connection_max = 2");
    let mut peer = Peer::set_up(&pool.url, 0).expect("the pool accepts");
    let refused = |peer: &mut Peer| {
        let code = peer.receive_until(|message| match message {
            Message::OpenMiningChannelError(error) => Some((error.request_id, text(error.error_code))),
            _ => None,
        });
        code.expect("an answer")
    };
    let open = |request_id, nominal_hash_rate, max_target, min_extranonce_size| OpenExtendedMiningChannel {
        request_id,
        user_identity: b"refused",
        nominal_hash_rate,
        max_target,
        min_extranonce_size,
    };
    let (any, none) = ([0xff; 32], [0; 32]);
    let cases = [
        (open(1, -1.0, &any, 8), "invalid-nominal-hashrate"),
        (open(2, f32::NAN, &any, 8), "invalid-nominal-hashrate"),
        (open(3, 1e12, &none, 8), "max-target-out-of-range"),
        (open(4, 1e12, &any, 33), "min-extranonce-size-too-large"),
    ];
    for (message, code) in cases {
        peer.send(&message).expect("the pool reads");
        assert_eq!(refused(&mut peer), (message.request_id, code.to_owned()));
    }
    let standard = OpenStandardMiningChannel {
        request_id: 5,
        user_identity: b"",
        nominal_hash_rate: f32::INFINITY,
        max_target: &any,
    };
    peer.send(&standard).expect("the pool reads");
    assert_eq!(refused(&mut peer), (5, "invalid-nominal-hashrate".to_owned()));
    for request_id in [6, 7, 8] {
        peer.send(&open(request_id, 1e12, &any, 8)).expect("the pool reads");
    }
    assert_eq!(refused(&mut peer), (8, "channel-capacity-exhausted".to_owned()));

    let update = |channel_id, nominal_hash_rate, maximum_target| UpdateChannel {
        channel_id,
        nominal_hash_rate,
        maximum_target,
    };
    // Ids of channels begin above those of groups.
    let mut channels = Peer::set_up(&pool.url, 0).expect("the pool accepts");
    channels.open_standard(1, b"refused", 1e12).expect("the pool reads");
    let channel_id = channels.receive_until(|message| match message {
        Message::OpenStandardMiningChannelSuccess(success) => Some(success.channel_id),
        _ => None,
    });
    let channel_id = channel_id.expect("a channel");
    let cases = [
        (update(channel_id + 1, 1e12, &any), "invalid-channel-id"),
        (update(channel_id, -1.0, &any), "invalid-nominal-hashrate"),
        (update(channel_id, 1e12, &none), "max-target-out-of-range"),
    ];
    for (message, code) in cases {
        channels.send(&message).expect("the pool reads");
        let refused = channels.receive_until(|message| match message {
            Message::UpdateChannelError(error) => Some((error.channel_id, text(error.error_code))),
            _ => None,
        });
        assert_eq!(refused.expect("an answer"), (message.channel_id, code.to_owned()));
    }

    let custom = SetCustomMiningJob {
        channel_id,
        request_id: 9,
        mining_job_token: b"token",
        version: 0x2000_0000,
        prev_hash: &none,
        min_ntime: 0,
        nbits: 0x207f_ffff,
        coinbase_tx_version: 2,
        coinbase_prefix: &[0x51],
        coinbase_tx_input_n_sequence: u32::MAX,
        coinbase_tx_outputs: &[0],
        coinbase_tx_locktime: 0,
        merkle_path: [].as_slice().into(),
    };
    channels.send(&custom).expect("the pool reads");
    let refused = channels.receive_until(|message| match message {
        Message::SetCustomMiningJobError(error) => Some((error.request_id, text(error.error_code))),
        _ => None,
    });
    assert_eq!(refused.expect("an answer"), (9, "jd-not-supported".to_owned()));

    let mut devices = Peer::set_up(&pool.url, REQUIRES_STANDARD_JOBS).expect("the pool accepts");
    devices.open_extended(1, b"refused", 1e12, 8).expect("the pool reads");
    let refused = refused_opening(&mut devices);
    assert_eq!(refused, "extended-channels-not-supported-for-standard-jobs");
    drop((peer, channels, devices));
    pool.stop();
}

fn refused_opening(peer: &mut Peer) -> String {
    let code = peer.receive_until(|message| match message {
        Message::OpenMiningChannelError(error) => Some(text(error.error_code)),
        _ => None,
    });
    code.expect("an answer")
}

#[test]
fn shares_are_refused_with_their_codes() {
    // No job is repeated while the test runs.
    let pool = Pool::start("jobs.interval_s = 600.0\nlimits.shares_per_tip_max = 100");
    let mut client = Client::start(&pool, EASY);
    let work = client.work;
    let nonce = work.nonces(false).next().expect("half of all hashes are none");
    let share = work.share(nonce);
    assert_eq!(
        client.outcome(&SubmitSharesStandard { channel_id: work.channel_id + 1, ..share }),
        code("invalid-channel-id")
    );
    assert_eq!(
        client.outcome(&SubmitSharesStandard { job_id: work.job_id + 1_000, ..share }),
        code("invalid-job-id")
    );
    for ntime in [0, work.ntime - 1, u32::MAX] {
        assert_eq!(client.outcome(&SubmitSharesStandard { ntime, ..share }), code("ntime-out-of-range"));
    }
    let version = share.version ^ FIXED_BIT;
    assert_eq!(
        client.outcome(&SubmitSharesStandard { version, ..share }),
        code("invalid-non-rollable-version-bit")
    );
    assert_eq!(client.outcome(&share), None);
    assert_eq!(client.outcome(&share), code("duplicate-share"));
    let mut outcomes = work.nonces(false).skip(1).map(|nonce| client.outcome(&work.share(nonce)));
    assert!(outcomes.by_ref().take(99).all(|outcome| outcome.is_none()));
    assert_eq!(outcomes.next().flatten(), code("too-many-shares"));
    drop(outcomes);

    let mut weak = Client::start(&pool, HARD);
    let nonce = weak.work.nonces(false).next().expect("half of all hashes are none");
    let share = weak.work.share(nonce);
    assert_eq!(weak.outcome(&share), code("difficulty-too-low"));

    extended_shares_are_refused(&pool);

    // A block ends the tip, and with it all work.
    let height = pool.node.height();
    let nonce = client.work.nonces(true).next().expect("half of all hashes are");
    client.peer.send(&work.share(nonce)).expect("the pool reads");
    pool.wait_for_height(height + 1, PATIENCE);
    let deadline = Instant::now() + PATIENCE;
    while receive_work(&mut client.peer, work.channel_id).prev_hash == work.prev_hash {
        assert!(Instant::now() < deadline, "no new tip");
    }
    let old = work.nonces(false).nth(500).expect("half of all hashes are none");
    client.peer.send(&work.share(old)).expect("the pool reads");
    let stale = client.peer.receive_until(|message| match message {
        Message::SubmitSharesError(error) if error.sequence_number == old => Some(text(error.error_code)),
        _ => None,
    });
    assert_eq!(stale.expect("an answer"), "stale-share");
    drop((client, weak));
    pool.stop();
}

fn extended_shares_are_refused(pool: &Pool) {
    let mut peer = Peer::set_up(&pool.url, 0).expect("the pool accepts");
    peer.send(&RequestExtensions { request_id: 1, requested_extensions: [WORKERS][..].into() })
        .expect("the pool reads");
    peer.open_extended(1, b"refused", EASY, 8).expect("the pool reads");
    let channel_id = peer.receive_until(|message| match message {
        Message::OpenExtendedMiningChannelSuccess(success) => Some(success.channel_id),
        _ => None,
    });
    let channel_id = channel_id.expect("a channel");
    let (job_id, version) = peer
        .receive_until(|message| match message {
            Message::NewExtendedMiningJob(job) => Some((job.job_id, job.version)),
            _ => None,
        })
        .expect("a job");
    let ntime = peer.receive_until(|message| match message {
        Message::SetNewPrevHash(tip) => Some(tip.min_ntime),
        _ => None,
    });
    let share = SubmitSharesExtended {
        channel_id,
        sequence_number: 1,
        job_id,
        nonce: 0,
        ntime: ntime.expect("a tip"),
        version,
        extranonce: &[0; 7],
    };
    peer.send(&share).expect("the pool reads");
    assert_eq!(answer(&mut peer), code("bad-extranonce-size"));
    // A worker's name of 33 bytes: type, length and value.
    let name = [&[2, 0, 1, 33, 0][..], &[b'w'; 33]].concat();
    peer.send_frame(&with_trailing(&SubmitSharesExtended { extranonce: &[0; 8], ..share }, &name))
        .expect("the pool reads");
    assert_eq!(answer(&mut peer), code("invalid-user-identity"));
}

/// A frame with fields behind those of its message.
fn with_trailing<M: Encode>(message: &M, trailing: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; frame_len(message)];
    let len = encode_frame(message, &mut frame).expect("tests send encodable messages");
    frame.truncate(len);
    frame.extend_from_slice(trailing);
    let payload_len = frame.len() - 6;
    frame[3..6].copy_from_slice(&(payload_len as u32).to_le_bytes()[..3]);
    frame
}
