//! Jobs, tips, targets, prefixes and groups.

use adit_codec::message::flags::{REQUIRES_FIXED_VERSION, REQUIRES_STANDARD_JOBS, REQUIRES_VERSION_ROLLING};
use adit_codec::message::{MessageKind, SetExtranoncePrefix, SetGroupChannel, SetTarget};

use super::*;

fn new_work(id: u32) -> ClientEvent {
    ClientEvent::NewWork { channel: ChannelId(id) }
}

fn target(scenario: &mut Scenario, channel_id: u32, byte: u8) {
    scenario.receive(&SetTarget { channel_id, maximum_target: &[byte; 32] }).unwrap();
}

#[test]
fn a_standard_job_waits_for_its_prev_hash() {
    let mut scenario = Scenario::ready().with_standard(64);
    let channel = ChannelId(64);
    let no_tip = ClientFault::NoPrevHash { channel, job: JobId(1) };
    assert_eq!(scenario.standard_job(64, 1, Some(5)), Err(no_tip));
    scenario.standard_job(64, 1, None).unwrap();
    assert_eq!(scenario.events(), [ClientEvent::FutureJob { channel, job: JobId(1) }]);
    assert!(scenario.client.work(channel, &Portable).is_none());
    scenario.prev_hash(64, 1).unwrap();
    assert_eq!(scenario.events(), [new_work(64)]);
    let work = scenario.work(64);
    assert_eq!((work.job_id, work.min_ntime, work.nbits), (JobId(1), 1_000, 0x207f_ffff));
    assert!(work.version_rolling_allowed);
    let header = work.header(&[], 0x2000_0020, 1_001, 77).unwrap();
    assert_eq!(header[..4], 0x2000_0020u32.to_le_bytes());
    assert_eq!(header[4..36], [0x99; 32]);
    assert_eq!(header[36..68], [1; 32]);
    assert_eq!(header[68..72], 1_001u32.to_le_bytes());
    assert_eq!(header[72..76], 0x207f_ffffu32.to_le_bytes());
    assert_eq!(header[76..], 77u32.to_le_bytes());
    assert_eq!(work.header(&[0], 0, 0, 0), None);
}

#[test]
fn an_active_job_takes_over_at_once_on_the_same_tip() {
    let mut scenario = Scenario::ready().with_standard(64);
    scenario.standard_job(64, 1, None).unwrap();
    scenario.prev_hash(64, 1).unwrap();
    scenario.pass(3);
    scenario.standard_job(64, 2, Some(1_002)).unwrap();
    let work = scenario.work(64);
    assert_eq!((work.job_id, work.min_ntime, work.prev_hash), (JobId(2), 1_002, [0x99; 32]));
    assert_eq!(work.ntime_max(scenario.now), 1_002);
    // An ntime below the tip's would be refused.
    scenario.standard_job(64, 3, Some(10)).unwrap();
    assert_eq!(scenario.work(64).min_ntime, 1_000);
    let in_use = ClientFault::JobIdInUse { channel: ChannelId(64), job: JobId(1) };
    assert_eq!(scenario.standard_job(64, 1, None), Err(in_use));
}

#[test]
fn a_prev_hash_leaves_one_job_valid() {
    let mut scenario = Scenario::ready().with_extended(64);
    for job in 1..=3 {
        scenario.extended_job(64, job, None).unwrap();
    }
    scenario.prev_hash(64, 2).unwrap();
    scenario.extended_job(64, 4, Some(1_000)).unwrap();
    scenario.extended_job(64, 5, None).unwrap();
    let channel = ChannelId(64);
    for gone in [1, 3, 2, 4, 9] {
        let unknown = ClientFault::UnknownFutureJob { channel, job: JobId(gone) };
        assert_eq!(scenario.prev_hash(64, gone), Err(unknown));
    }
    scenario.prev_hash(64, 5).unwrap();
    let channel = scenario.client.channel(channel).unwrap();
    assert_eq!((channel.current_job(), channel.future_jobs().count()), (Some(JobId(5)), 0));
    // Ids of jobs that are not valid any more may come again.
    for job in 1..=4 {
        scenario.extended_job(64, job, Some(1_000)).unwrap();
    }
}

#[test]
fn a_group_job_reaches_its_channels_with_their_own_roots() {
    let mut scenario = Scenario::ready().with_standard(64).with_extended(65).with_standard(66);
    scenario.extended_job(GROUP.0, 1, None).unwrap();
    scenario.events();
    scenario.prev_hash(GROUP.0, 1).unwrap();
    assert_eq!(scenario.events(), [new_work(64), new_work(65), new_work(66)]);
    for id in [64, 66] {
        let WorkKind::Standard { merkle_root } = scenario.work(id).kind else { panic!() };
        assert_eq!(merkle_root, root_of(&[id as u8; 16]));
    }
    let work = scenario.work(65);
    assert_eq!(work.extranonce_size(), 6);
    let extranonce = [1, 2, 3, 4, 5, 6];
    let root = root_of(&[&[65; 10][..], &extranonce].concat());
    assert_eq!(work.merkle_root(&extranonce, &Portable), Some(root));
    assert_eq!(work.header(&extranonce, 1, 2, 3).unwrap()[36..68], root);
    assert_eq!(work.merkle_root(&extranonce[1..], &Portable), None);
}

#[test]
fn a_group_message_is_checked_for_all_before_it_changes_one() {
    let mut scenario = Scenario::ready().with_standard(64).with_standard(65);
    scenario.standard_job(64, 1, None).unwrap();
    let fault = ClientFault::UnknownFutureJob { channel: ChannelId(65), job: JobId(1) };
    assert_eq!(scenario.prev_hash(GROUP.0, 1), Err(fault));
    assert!(scenario.client.work(ChannelId(64), &Portable).is_none());
    let fault = ClientFault::JobIdInUse { channel: ChannelId(64), job: JobId(1) };
    assert_eq!(scenario.extended_job(GROUP.0, 1, None), Err(fault));
    assert_eq!(scenario.client.channel(ChannelId(65)).unwrap().future_jobs().count(), 0);
}

#[test]
fn a_target_binds_when_a_job_becomes_active() {
    let mut scenario = Scenario::ready().with_standard(64).with_standard(65);
    let at = |scenario: &Scenario, id| scenario.work(id).target.to_le_bytes()[0];
    scenario.extended_job(GROUP.0, 1, None).unwrap();
    scenario.extended_job(GROUP.0, 2, None).unwrap();
    target(&mut scenario, 64, 1);
    scenario.prev_hash(GROUP.0, 1).unwrap();
    assert_eq!((at(&scenario, 64), at(&scenario, 65)), (1, 0x7f), "future jobs take the new target");
    target(&mut scenario, GROUP.0, 2);
    assert_eq!((at(&scenario, 64), at(&scenario, 65)), (1, 0x7f), "active jobs keep theirs");
    scenario.extended_job(GROUP.0, 3, Some(1_000)).unwrap();
    assert_eq!((at(&scenario, 64), at(&scenario, 65)), (2, 2));
    let zero = SetTarget { channel_id: GROUP.0, maximum_target: &[0; 32] };
    assert_eq!(scenario.receive(&zero), Err(ClientFault::ZeroTarget { channel: ChannelId(64) }));
}

#[test]
fn a_prefix_applies_to_jobs_that_come_later() {
    let mut scenario = Scenario::ready().with_standard(64).with_standard(65);
    scenario.extended_job(GROUP.0, 1, None).unwrap();
    scenario.receive(&SetExtranoncePrefix { channel_id: 64, extranonce_prefix: &[9; 16] }).unwrap();
    scenario.extended_job(GROUP.0, 2, None).unwrap();
    let root = |scenario: &Scenario| match scenario.work(64).kind {
        WorkKind::Standard { merkle_root } => merkle_root,
        WorkKind::Extended { .. } => panic!(),
    };
    scenario.prev_hash(GROUP.0, 1).unwrap();
    assert_eq!(root(&scenario), root_of(&[64; 16]));
    scenario.extended_job(GROUP.0, 3, Some(1_000)).unwrap();
    assert_eq!(root(&scenario), root_of(&[9; 16]));

    let group_len =
        ClientFault::GroupExtranonceLen { group: GROUP, channel: ChannelId(64), len: 17, group_len: 16 };
    let longer = SetExtranoncePrefix { channel_id: 64, extranonce_prefix: &[9; 17] };
    assert_eq!(scenario.receive(&longer), Err(group_len));
    let kind = ClientFault::WrongChannelKind { message: MessageKind::SetExtranoncePrefix, channel: GROUP };
    assert_eq!(
        scenario.receive(&SetExtranoncePrefix { channel_id: GROUP.0, extranonce_prefix: &[9; 16] }),
        Err(kind)
    );
}

#[test]
fn a_channel_alone_in_its_group_can_change_the_size_of_its_extranonce() {
    let mut scenario = Scenario::ready().with_extended(64);
    scenario.extended_job(GROUP.0, 1, None).unwrap();
    scenario.receive(&SetExtranoncePrefix { channel_id: 64, extranonce_prefix: &[9; 12] }).unwrap();
    scenario.prev_hash(GROUP.0, 1).unwrap();
    let root = |scenario: &Scenario| scenario.work(64).merkle_root(&[5; 6], &Portable).unwrap();
    assert_eq!(root(&scenario), root_of(&[&[64; 10][..], &[5; 6]].concat()));
    scenario.extended_job(GROUP.0, 2, Some(1_000)).unwrap();
    assert_eq!(root(&scenario), root_of(&[&[9; 12][..], &[5; 6]].concat()));
    let too_long = ClientFault::ExtranonceTooLong { channel: ChannelId(64), len: 33 };
    assert_eq!(
        scenario.receive(&SetExtranoncePrefix { channel_id: 64, extranonce_prefix: &[9; 27] }),
        Err(too_long)
    );
}

#[test]
fn channels_move_between_groups() {
    let mut scenario = Scenario::ready().with_standard(64).with_standard(65).with_extended(66);
    let regroup = |group_channel_id, ids: &'static [u32]| SetGroupChannel {
        group_channel_id,
        channel_ids: Seq::from(ids),
    };
    scenario.receive(&regroup(40, &[65, 66, 66])).unwrap();
    let changed = |id| ClientEvent::GroupChanged { channel: ChannelId(id), group: ChannelId(40) };
    assert_eq!(scenario.events(), [changed(65), changed(66)]);
    scenario.extended_job(40, 1, None).unwrap();
    scenario.events();
    scenario.prev_hash(40, 1).unwrap();
    assert_eq!(scenario.events(), [new_work(65), new_work(66)]);
    scenario.extended_job(GROUP.0, 1, None).unwrap();
    assert_eq!(scenario.client.channel(ChannelId(64)).unwrap().future_jobs().count(), 1);
    assert_eq!(scenario.client.channel(ChannelId(65)).unwrap().future_jobs().count(), 0);

    let message = MessageKind::SetGroupChannel;
    let in_use = ClientFault::IdInUse { message, channel: ChannelId(64) };
    assert_eq!(scenario.receive(&regroup(64, &[65])), Err(in_use));
    let unknown = ClientFault::UnknownChannel { message, channel: ChannelId(99) };
    assert_eq!(scenario.receive(&regroup(40, &[64, 99])), Err(unknown));
    assert_eq!(scenario.client.channel(ChannelId(64)).unwrap().group(), GROUP);
    let group = ClientFault::WrongChannelKind { message, channel: GROUP };
    assert_eq!(scenario.receive(&regroup(40, &[GROUP.0])), Err(group));
    // A group without channels never begins.
    scenario.receive(&regroup(41, &[])).unwrap();
    let unknown =
        ClientFault::UnknownChannel { message: MessageKind::NewExtendedMiningJob, channel: ChannelId(41) };
    assert_eq!(scenario.extended_job(41, 1, None), Err(unknown));
}

#[test]
fn channels_of_one_group_have_one_extranonce_size() {
    let mut scenario = Scenario::ready().with_standard(64).with_extended(65);
    let request =
        scenario.client.open_extended(b"", 0.0, Target::MAX, 8, scenario.now, &mut scenario.out).unwrap();
    scenario
        .receive(&OpenExtendedMiningChannelSuccess {
            request_id: request.0,
            channel_id: 66,
            target: &[1; 32],
            extranonce_size: 8,
            extranonce_prefix: &[7; 10],
            group_channel_id: 18,
        })
        .unwrap();
    let ids = [64, 66];
    let fault = ClientFault::GroupExtranonceLen {
        group: ChannelId(40),
        channel: ChannelId(66),
        len: 18,
        group_len: 16,
    };
    let regroup = SetGroupChannel { group_channel_id: 40, channel_ids: Seq::from(&ids[..]) };
    assert_eq!(scenario.receive(&regroup), Err(fault));
}

#[test]
fn jobs_of_the_wrong_kind() {
    let mut scenario = Scenario::ready().with_standard(64).with_extended(65);
    let wrong = |message, id| Err(ClientFault::WrongChannelKind { message, channel: ChannelId(id) });
    assert_eq!(scenario.extended_job(64, 1, None), wrong(MessageKind::NewExtendedMiningJob, 64));
    assert_eq!(scenario.standard_job(65, 1, None), wrong(MessageKind::NewMiningJob, 65));
    assert_eq!(scenario.standard_job(GROUP.0, 1, None), wrong(MessageKind::NewMiningJob, GROUP.0));

    let mut scenario = Scenario::ready_with(config(REQUIRES_STANDARD_JOBS, &[]), 0).with_standard(64);
    let extended = ClientFault::StandardJobsRequired(MessageKind::NewExtendedMiningJob);
    assert_eq!(scenario.extended_job(GROUP.0, 1, None), Err(extended));
    let ids = [64];
    let regroup = SetGroupChannel { group_channel_id: 40, channel_ids: Seq::from(&ids[..]) };
    assert_eq!(
        scenario.receive(&regroup),
        Err(ClientFault::StandardJobsRequired(MessageKind::SetGroupChannel))
    );
}

#[test]
fn version_rolling_is_what_was_agreed() {
    let job = JobId(1);
    let mut scenario = Scenario::ready_with(config(REQUIRES_VERSION_ROLLING, &[]), 0).with_extended(64);
    let fixed = NewExtendedMiningJob { version_rolling_allowed: false, ..extended_job(64, 1, None) };
    assert_eq!(scenario.receive(&fixed), Err(ClientFault::VersionRolling { job, allowed: false }));

    let mut scenario =
        Scenario::ready_with(config(0, &[]), REQUIRES_FIXED_VERSION).with_extended(64).with_standard(65);
    assert_eq!(scenario.extended_job(64, 1, None), Err(ClientFault::VersionRolling { job, allowed: true }));
    scenario.receive(&fixed).unwrap();
    scenario.standard_job(65, 1, None).unwrap();
    scenario.prev_hash(GROUP.0, 1).unwrap();
    assert!(!scenario.work(64).version_rolling_allowed);
    assert!(!scenario.work(65).version_rolling_allowed);
}

#[test]
fn jobs_are_bounded_in_number_and_in_bytes() {
    let mut limited = config(0, &[]);
    limited.limits.future_jobs_max = 2;
    limited.limits.active_jobs_max = 2;
    limited.limits.job_bytes_max = 700_000;
    let mut scenario = Scenario::ready_with(limited, 0).with_extended(64);
    for job in 1..=3 {
        scenario.extended_job(64, job, None).unwrap();
    }
    let channel = scenario.client.channel(ChannelId(64)).unwrap();
    assert_eq!(channel.future_jobs().collect::<Vec<_>>(), [JobId(2), JobId(3)]);
    scenario.prev_hash(64, 3).unwrap();
    for job in 4..=5 {
        scenario.extended_job(64, job, Some(1_000)).unwrap();
    }
    // Only two jobs of the tip are remembered, so that the id of the first can come again.
    scenario.extended_job(64, 3, Some(1_000)).unwrap();

    let huge = [0; 40_000];
    let huge_job =
        |job_id| NewExtendedMiningJob { coinbase_tx_suffix: &huge, ..extended_job(64, job_id, Some(1_000)) };
    for job in 10..200 {
        scenario.receive(&huge_job(job)).unwrap();
    }
    // A device that does not let go of its work keeps its job's bytes in the sum.
    let works: Vec<Work> = (200..203)
        .map(|job| {
            scenario.receive(&huge_job(job)).unwrap();
            scenario.work(64)
        })
        .collect();
    let fault = scenario.receive(&huge_job(203));
    assert!(matches!(fault, Err(ClientFault::JobBytes { bytes_max: 700_000, .. })), "{fault:?}");
    drop(works);
}

#[test]
fn a_merkle_path_deeper_than_any_block() {
    let mut scenario = Scenario::ready().with_extended(64);
    let path = [[0; 32]; 33];
    let job = NewExtendedMiningJob { merkle_path: Seq::from(&path[..]), ..extended_job(64, 1, None) };
    assert!(matches!(scenario.receive(&job), Err(ClientFault::Job { job: JobId(1), .. })));
}
