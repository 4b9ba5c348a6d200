//! An upstream that sends anything: no panic, bounded state, and a fault changes nothing.

use adit_codec::message::{
    ChannelEndpointChanged, CloseChannel, OpenMiningChannelError, RequestExtensionsError,
    RequestExtensionsSuccess, SetExtranoncePrefix, SetGroupChannel, SetTarget, SubmitSharesError,
    SubmitSharesSuccess, UpdateChannelError,
};

use super::*;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u32) -> u32 {
        (self.next() % u64::from(bound)) as u32
    }

    /// Few ids, so that many messages mean something.
    fn channel(&mut self) -> u32 {
        [GROUP.0, 40, 64, 65, 66, 67, 68, 0xffff_ffff][self.below(8) as usize]
    }

    fn min_ntime(&mut self) -> Option<u32> {
        [None, Some(0), Some(1_000), Some(u32::MAX)][self.below(4) as usize]
    }

    fn target(&mut self) -> [u8; 32] {
        [[0; 32], [1; 32], [0x7f; 32], [0xff; 32]][self.below(4) as usize]
    }
}

/// All that a fault must not change.
fn state(client: &Client) -> Vec<std::string::String> {
    let channel = |channel: &ClientChannel| std::format!("{channel:?}");
    let rest = std::format!("{:?} {} {:?}", client.extensions(), client.is_ready(), client.poll_timeout());
    client.channels().map(channel).chain([rest]).collect()
}

fn anything(scenario: &mut Scenario, random: &mut Random) -> Result<(), ClientFault> {
    let (channel_id, job) = (random.channel(), random.below(12));
    let small = random.below(6);
    let bytes = [random.next() as u8; 33];
    let prefix = &bytes[..[10, 16, 32, 0][random.below(4) as usize]];
    let ids = [random.channel(), random.channel(), random.channel()];
    let extensions = [2, 3];
    match random.below(17) {
        0 | 1 => scenario.standard_job(channel_id, job, random.min_ntime()),
        2 | 3 => scenario.extended_job(channel_id, job, random.min_ntime()),
        4 | 5 => scenario.prev_hash(channel_id, job),
        6 => scenario.receive(&SetTarget { channel_id, maximum_target: &random.target() }),
        7 => scenario.receive(&SetExtranoncePrefix { channel_id, extranonce_prefix: prefix }),
        8 => {
            let channel_ids = Seq::from(&ids[..small.min(3) as usize]);
            scenario.receive(&SetGroupChannel { group_channel_id: channel_id, channel_ids })
        }
        9 => scenario.receive(&CloseChannel { channel_id, reason_code: b"bye" }),
        10 => scenario.receive(&SubmitSharesSuccess {
            channel_id,
            last_sequence_number: small,
            new_submits_accepted_count: random.below(4),
            new_shares_sum: u64::MAX,
        }),
        11 => scenario.receive(&SubmitSharesError { channel_id, sequence_number: small, error_code: b"no" }),
        12 => scenario.receive(&OpenStandardMiningChannelSuccess {
            request_id: small,
            channel_id,
            target: &random.target(),
            extranonce_prefix: prefix,
            group_channel_id: random.channel(),
        }),
        13 => scenario.receive(&OpenExtendedMiningChannelSuccess {
            request_id: small,
            channel_id,
            target: &random.target(),
            extranonce_size: [6, 0, 23, 65_535][random.below(4) as usize],
            extranonce_prefix: prefix,
            group_channel_id: random.channel(),
        }),
        14 => scenario.receive(&OpenMiningChannelError { request_id: small, error_code: b"no" }),
        15 => scenario.receive(&UpdateChannelError { channel_id, error_code: b"no" }),
        _ => match small {
            0 => scenario.receive(&ChannelEndpointChanged { channel_id }),
            1 => scenario.receive(&RequestExtensionsSuccess {
                request_id: job as u16,
                supported_extensions: Seq::from(&extensions[..]),
            }),
            2 => scenario.receive(&RequestExtensionsError {
                request_id: job as u16,
                unsupported_extensions: Seq::from(&extensions[..1]),
                required_extensions: Seq::from(&extensions[..random.below(2) as usize]),
            }),
            _ => {
                // Bytes that nobody wrote.
                let len = random.below(60);
                let payload: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
                let header = FrameHeader {
                    extension_type: [0, 0, 1, 0x4000][random.below(4) as usize],
                    channel_msg: random.below(2) == 0,
                    msg_type: random.below(0x30) as u8,
                    payload_len: len,
                };
                scenario.receive_frame(&[&header.to_bytes()[..], &payload].concat())
            }
        },
    }
}

/// The client, too, does what it may.
fn act(scenario: &mut Scenario, random: &mut Random) {
    let (now, channel) = (scenario.now, ChannelId(random.channel()));
    let Scenario { client, out, .. } = scenario;
    // Whatever is refused is refused.
    let _ = match random.below(6) {
        0 => client.open_standard(b"u", 1.0, Target::MAX, now, out).map(drop),
        1 => client.open_extended(b"u", 1.0, Target::MAX, 6, now, out).map(drop),
        2 => client.update_channel(channel, 1.0, Target::MAX, out),
        3 if random.below(4) == 0 => client.close_channel(channel, b"bye", out),
        _ => match client.work(channel, &Portable) {
            None => Ok(()),
            Some(work) => {
                let extranonce = vec![0; work.extranonce_size()];
                let (job, ntime, version) = (work.job_id, work.min_ntime, work.version);
                match client.channel(channel).map(ClientChannel::kind) {
                    Some(ChannelKind::Standard) => {
                        client.submit_standard(channel, job, 0, ntime, version, now, out).map(drop)
                    }
                    _ => client
                        .submit_extended(channel, job, 0, ntime, version, &extranonce, None, now, out)
                        .map(drop),
                }
            }
        },
    };
}

#[test]
fn whatever_comes_a_fault_changes_nothing() {
    let (mut taken, mut faults) = (0, 0);
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut config = config(0, &[2, 3]);
        config.limits.closed_channels_max = 3;
        config.limits.future_jobs_max = 4;
        config.limits.active_jobs_max = 3;
        config.limits.outstanding_shares_max = 4;
        config.limits.channels_max = 5;
        let mut scenario = Scenario::new(config);
        scenario.client.handle_connected(scenario.now, &mut scenario.out);
        scenario.receive(&SetupConnectionSuccess { used_version: 2, flags: 0 }).unwrap();
        for _ in 0..600 {
            let before = state(&scenario.client);
            scenario.out = ClientOutbox::new();
            match anything(&mut scenario, &mut random) {
                Ok(()) => taken += 1,
                Err(fault) => {
                    faults += 1;
                    assert_eq!(before, state(&scenario.client), "seed {seed}: {fault}");
                    assert!(scenario.out.is_empty(), "seed {seed}: {fault}");
                    assert!(!std::format!("{fault}").is_empty());
                }
            }
            act(&mut scenario, &mut random);
            if random.below(20) == 0 {
                scenario.pass(u64::from(random.below(40)));
                scenario.client.handle_timeout(scenario.now, &mut scenario.out).unwrap();
            }
            assert!(scenario.client.channels().count() <= 5, "seed {seed}");
            for channel in scenario.client.channels() {
                assert!(channel.future_jobs().count() <= 4 && channel.outstanding() <= 4, "seed {seed}");
            }
        }
    }
    assert!(taken > 5_000 && faults > 5_000, "{taken} taken, {faults} faults");
}
