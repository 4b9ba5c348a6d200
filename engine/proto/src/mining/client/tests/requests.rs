//! Opening, updating and closing channels.

use adit_codec::message::flags::{REQUIRES_EXTENDED_CHANNELS, REQUIRES_STANDARD_JOBS};
use adit_codec::message::{CloseChannel, MessageKind, OpenMiningChannelError, SetTarget, UpdateChannelError};

use super::*;

fn opened(request: RequestId, channel_id: u32) -> OpenExtendedMiningChannelSuccess<'static> {
    OpenExtendedMiningChannelSuccess {
        request_id: request.0,
        channel_id,
        target: &[1; 32],
        extranonce_size: 6,
        extranonce_prefix: &[7; 10],
        group_channel_id: GROUP.0,
    }
}

fn open(scenario: &mut Scenario) -> RequestId {
    scenario.client.open_extended(b"user", 5.0, Target::MAX, 6, scenario.now, &mut scenario.out).unwrap()
}

#[test]
fn channels_open() {
    let mut scenario = Scenario::ready();
    let request = open(&mut scenario);
    let sent = scenario.sent();
    let Message::OpenExtendedMiningChannel(message) = message(&sent[0]) else { panic!("{sent:?}") };
    assert_eq!((message.request_id, message.min_extranonce_size), (request.0, 6));
    assert_eq!((message.user_identity, message.nominal_hash_rate), (&b"user"[..], 5.0));
    scenario.receive(&opened(request, 64)).unwrap();
    let channel = ChannelId(64);
    assert_eq!(scenario.events(), [ClientEvent::ChannelOpened { request, channel }]);
    let channel = scenario.client.channel(channel).unwrap();
    assert_eq!(channel.kind(), ChannelKind::Extended { extranonce_size: 6 });
    assert_eq!((channel.group(), channel.extranonce_prefix()), (GROUP, &[7; 10][..]));
    assert_eq!((channel.target(), channel.extranonce_len()), (Target::from_le_bytes([1; 32]), 16));
}

#[test]
fn openings_are_refused_or_time_out() {
    let mut scenario = Scenario::ready();
    let (refused, late) = (open(&mut scenario), open(&mut scenario));
    let error =
        |request: RequestId| OpenMiningChannelError { request_id: request.0, error_code: b"unknown-user" };
    scenario.receive(&error(refused)).unwrap();
    let deadline = scenario.client.poll_timeout().unwrap();
    scenario.client.handle_timeout(deadline, &mut scenario.out).unwrap();
    let error_code = "unknown-user".into();
    let reported = [
        ClientEvent::OpenRefused { request: refused, error_code },
        ClientEvent::OpenTimedOut { request: late },
    ];
    assert_eq!(scenario.events(), reported);
    assert_eq!(scenario.client.poll_timeout(), None);
    scenario.sent();
    // What is opened too late is closed at once, and messages for it do no harm.
    scenario.receive(&opened(late, 64)).unwrap();
    let sent = scenario.sent();
    assert!(matches!(message(&sent[0]), Message::CloseChannel(close) if close.channel_id == 64), "{sent:?}");
    scenario.extended_job(64, 1, None).unwrap();
    assert_eq!(scenario.events(), []);
    let message = MessageKind::OpenMiningChannelError;
    let unknown = ClientFault::UnknownRequest { message, request_id: refused.0 };
    assert_eq!(scenario.receive(&error(refused)), Err(unknown));
}

#[test]
fn answers_that_cannot_be() {
    let mut scenario = Scenario::ready().with_standard(70);
    let request = open(&mut scenario);
    let good = opened(request, 64);
    let message = MessageKind::OpenExtendedMiningChannelSuccess;
    let channel = ChannelId(64);
    let in_use = |id| Err(ClientFault::IdInUse { message, channel: ChannelId(id) });
    let long = [0; 32];
    let cases = [
        (
            OpenExtendedMiningChannelSuccess { request_id: 999, ..good },
            Err(ClientFault::UnknownRequest { message, request_id: 999 }),
        ),
        (OpenExtendedMiningChannelSuccess { channel_id: 70, ..good }, in_use(70)),
        (OpenExtendedMiningChannelSuccess { channel_id: GROUP.0, ..good }, in_use(GROUP.0)),
        (OpenExtendedMiningChannelSuccess { group_channel_id: 64, ..good }, in_use(64)),
        (OpenExtendedMiningChannelSuccess { group_channel_id: 70, ..good }, in_use(70)),
        (
            OpenExtendedMiningChannelSuccess { extranonce_size: 5, ..good },
            Err(ClientFault::ExtranonceTooShort { channel, granted: 5, requested: 6 }),
        ),
        (
            OpenExtendedMiningChannelSuccess { extranonce_prefix: &long, ..good },
            Err(ClientFault::ExtranonceTooLong { channel, len: 38 }),
        ),
        (
            OpenExtendedMiningChannelSuccess { extranonce_size: 7, ..good },
            Err(ClientFault::GroupExtranonceLen { group: GROUP, channel, len: 17, group_len: 16 }),
        ),
        (
            OpenExtendedMiningChannelSuccess { target: &[0; 32], ..good },
            Err(ClientFault::ZeroTarget { channel }),
        ),
    ];
    for (answer, fault) in cases {
        assert_eq!(scenario.receive(&answer), fault, "{answer:?}");
    }
    // None of them changed anything.
    scenario.receive(&good).unwrap();
}

#[test]
fn a_target_above_what_was_asked_for() {
    let mut scenario = Scenario::ready();
    let max_target = Target::from_le_bytes([1; 32]);
    let request =
        scenario.client.open_extended(b"", 0.0, max_target, 6, scenario.now, &mut scenario.out).unwrap();
    let fault = Err(ClientFault::TargetAboveMaximum { channel: ChannelId(64) });
    assert_eq!(
        scenario.receive(&OpenExtendedMiningChannelSuccess { target: &[2; 32], ..opened(request, 64) }),
        fault
    );
    scenario.receive(&opened(request, 64)).unwrap();
    let easier = SetTarget { channel_id: 64, maximum_target: &[2; 32] };
    assert_eq!(scenario.receive(&easier), fault);
    // Once asked for, it may come, also after something harder was asked for.
    for target in [[2; 32], [1; 32]] {
        let target = Target::from_le_bytes(target);
        scenario.client.update_channel(ChannelId(64), 1.0, target, &mut scenario.out).unwrap();
    }
    scenario.receive(&easier).unwrap();
}

#[test]
fn requests_that_are_not_sent() {
    let mut scenario = Scenario::ready_with(config(REQUIRES_STANDARD_JOBS, &[]), REQUIRES_EXTENDED_CHANNELS);
    let (now, max) = (scenario.now, Target::MAX);
    let Scenario { client, out, .. } = &mut scenario;
    assert_eq!(client.open_standard(b"", 0.0, max, now, out), Err(Refusal::ExtendedChannelsRequired));
    assert_eq!(client.open_extended(b"", 0.0, max, 4, now, out), Err(Refusal::StandardJobsRequired));

    let mut limited = config(0, &[]);
    limited.limits.channels_max = 1;
    let mut scenario = Scenario::ready_with(limited, 0);
    let Scenario { client, out, .. } = &mut scenario;
    assert_eq!(client.open_standard(&[b'u'; 256], 0.0, max, now, out), Err(Refusal::TextTooLong));
    assert_eq!(client.open_standard(b"", f32::NAN, max, now, out), Err(Refusal::HashRate));
    assert_eq!(client.open_standard(b"", -1.0, max, now, out), Err(Refusal::HashRate));
    assert_eq!(client.open_extended(b"", 0.0, max, 33, now, out), Err(Refusal::ExtranonceTooLong));
    let zero = Target::from_le_bytes([0; 32]);
    assert_eq!(client.open_standard(b"", 0.0, zero, now, out), Err(Refusal::ZeroTarget));
    assert_eq!(client.update_channel(ChannelId(1), 0.0, max, out), Err(Refusal::UnknownChannel));
    assert_eq!(client.close_channel(ChannelId(1), b"", out), Err(Refusal::UnknownChannel));
    assert_eq!(client.close_channel(ChannelId(1), b"\n", out), Err(Refusal::ControlCharacter));
    client.open_standard(b"", 0.0, max, now, out).unwrap();
    assert_eq!(client.open_standard(b"", 0.0, max, now, out), Err(Refusal::TooManyChannels));
    assert_eq!(scenario.sent().len(), 1);
}

#[test]
fn the_client_closes_a_channel_or_a_group() {
    let mut scenario = Scenario::ready().with_standard(64).with_extended(65).with_extended(66);
    let Scenario { client, out, .. } = &mut scenario;
    client.close_channel(ChannelId(65), b"done", out).unwrap();
    client.close_channel(GROUP, b"done", out).unwrap();
    assert_eq!(client.channels().count(), 0);
    let sent = scenario.sent();
    let ids = |frame| match message(frame) {
        Message::CloseChannel(close) => close.channel_id,
        other => panic!("{other:?}"),
    };
    assert_eq!(sent.iter().map(|frame| ids(frame)).collect::<Vec<_>>(), [65, GROUP.0]);
    // What was under way is ignored; what never was is a fault.
    for id in [64, 65, 66, GROUP.0] {
        scenario.receive(&SetTarget { channel_id: id, maximum_target: &[1; 32] }).unwrap();
    }
    assert_eq!(scenario.client.counters().frames_ignored, 4);
    let unknown = ClientFault::UnknownChannel { message: MessageKind::SetTarget, channel: ChannelId(67) };
    assert_eq!(scenario.receive(&SetTarget { channel_id: 67, maximum_target: &[1; 32] }), Err(unknown));
}

#[test]
fn the_upstream_closes_a_channel_or_a_group() {
    let mut scenario = Scenario::ready().with_standard(64).with_extended(65).with_extended(66);
    for channel_id in [65, GROUP.0] {
        scenario.receive(&CloseChannel { channel_id, reason_code: b"bye" }).unwrap();
    }
    let closed =
        |id| ClientEvent::ChannelClosed { channel: ChannelId(id), reason_code: "bye".into(), unanswered: 0 };
    assert_eq!(scenario.events(), [closed(65), closed(64), closed(66)]);
    assert_eq!(scenario.client.channels().count(), 0);
    // The group can begin anew.
    let request = open(&mut scenario);
    scenario.receive(&opened(request, 67)).unwrap();
    scenario.extended_job(GROUP.0, 1, None).unwrap();
    assert_eq!(scenario.client.channel(ChannelId(67)).unwrap().future_jobs().count(), 1);
}

#[test]
fn updates_are_sent_and_may_be_refused() {
    let mut scenario = Scenario::ready().with_standard(64);
    let max = Target::from_le_bytes([9; 32]);
    scenario.client.update_channel(ChannelId(64), 2.5, max, &mut scenario.out).unwrap();
    let sent = scenario.sent();
    let Message::UpdateChannel(update) = message(&sent[0]) else { panic!("{sent:?}") };
    assert_eq!((update.channel_id, update.nominal_hash_rate, update.maximum_target), (64, 2.5, &[9; 32]));
    scenario.receive(&UpdateChannelError { channel_id: 64, error_code: b"no" }).unwrap();
    let error_code = "no".into();
    assert_eq!(scenario.events(), [ClientEvent::UpdateRefused { channel: ChannelId(64), error_code }]);
}
