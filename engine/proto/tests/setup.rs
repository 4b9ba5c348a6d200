//! Setup, extensions, what is out of place, and time running out.

mod common;

use std::time::Duration;

use adit_codec::frame::FrameHeader;
use adit_codec::message::{
    CloseChannel, Message, NewMiningJob, RequestExtensions, SetCustomMiningJob, SetTarget, SetupConnection,
    SubmitSharesStandard, SubmitSharesSuccess, UpdateChannel,
};
use adit_proto::mining::server::{CloseReason, ConnectionId, Event, ProtocolFault, ServerConfig};
use common::{Frame, World, config, setup};

fn closes(world: &mut World) -> Vec<CloseReason> {
    let events = world.take_events();
    events
        .into_iter()
        .filter_map(|event| match event {
            Event::Close { reason, .. } => Some(reason),
            _ => None,
        })
        .collect()
}

fn unexpected(name: &'static str) -> CloseReason {
    CloseReason::Protocol(ProtocolFault::Unexpected(name))
}

#[test]
fn setup_is_answered_with_version_and_flags() {
    let mut world = World::new(config());
    let id = world.server.handle_connect(world.now);
    world.send(id, &setup(0b101));
    let frames = world.take();
    let Message::SetupConnectionSuccess(answer) = frames[0].message() else { panic!("{:?}", frames[0]) };
    assert_eq!((frames.len(), answer.used_version, answer.flags), (1, 2, 0));
    assert_eq!(
        world.take_events(),
        [Event::SetUp { connection: id, vendor: b"vendor".to_vec(), firmware: b"fw".to_vec() }]
    );

    let mut world = World::new(ServerConfig { version_rolling: false, ..config() });
    let id = world.server.handle_connect(world.now);
    world.send(id, &setup(0));
    let frames = world.take();
    let Message::SetupConnectionSuccess(answer) = frames[0].message() else { panic!("{:?}", frames[0]) };
    assert_eq!(answer.flags, 1, "REQUIRES_FIXED_VERSION");
}

#[test]
fn a_setup_that_cannot_be_is_refused_and_closed() {
    let cases: [(SetupConnection<'_>, u32, &'static str); 4] = [
        (SetupConnection { protocol: 1, ..setup(0) }, 0, "unsupported-protocol"),
        (SetupConnection { min_version: 3, max_version: 9, ..setup(0) }, 0b10, "protocol-version-mismatch"),
        (setup(0b111), 0b10, "unsupported-feature-flags"),
        (setup(u32::MAX), !0b101, "unsupported-feature-flags"),
    ];
    for (message, flags, code) in cases {
        let mut world = World::new(config());
        let id = world.server.handle_connect(world.now);
        world.send(id, &message);
        let frames = world.take();
        let Message::SetupConnectionError(answer) = frames[0].message() else { panic!("{:?}", frames[0]) };
        assert_eq!((answer.flags, answer.error_code), (flags, code.as_bytes()));
        assert_eq!(closes(&mut world), [CloseReason::SetupRefused(code)]);
        world.send(id, &setup(0));
        assert!(world.take().is_empty(), "frames after the end are ignored");
        world.server.handle_disconnect(id, &mut world.out);
        assert_eq!(world.server.connection_count(), 0);
    }
}

#[test]
fn the_first_message_is_setup_and_comes_once() {
    let mut world = World::new(config());
    let id = world.server.handle_connect(world.now);
    world.open_standard(id);
    assert!(world.take().is_empty());
    assert_eq!(closes(&mut world), [unexpected("OpenStandardMiningChannel")]);

    let id = world.server.handle_connect(world.now);
    world.send(id, &RequestExtensions { request_id: 1, requested_extensions: [2][..].into() });
    assert_eq!(closes(&mut world), [unexpected("RequestExtensions")]);

    let id = world.server.handle_connect(world.now);
    let unknown = FrameHeader { extension_type: 0x4001, channel_msg: false, msg_type: 1, payload_len: 0 };
    world.send_raw(id, unknown, &[]);
    assert!(matches!(closes(&mut world)[..], [CloseReason::Protocol(ProtocolFault::Malformed(_))]));

    let id = world.connect(0);
    world.send(id, &setup(0));
    assert_eq!(closes(&mut world), [unexpected("SetupConnection")]);
}

#[test]
fn messages_of_the_other_direction_or_protocol_are_faults() {
    let mut world = World::with_work(config());
    let id = world.connect(0);
    world.send(id, &SetTarget { channel_id: 64, maximum_target: &[1; 32] });
    assert_eq!(closes(&mut world), [unexpected("SetTarget")]);

    let id = world.connect(0);
    let job = NewMiningJob { channel_id: 64, job_id: 1, min_ntime: None, version: 0, merkle_root: &[0; 32] };
    world.send(id, &job);
    assert_eq!(closes(&mut world), [unexpected("NewMiningJob")]);

    let id = world.connect(0);
    let success = SubmitSharesSuccess {
        channel_id: 64,
        last_sequence_number: 0,
        new_submits_accepted_count: 1,
        new_shares_sum: 1,
    };
    world.send(id, &success);
    assert_eq!(closes(&mut world), [unexpected("SubmitShares.Success")]);

    for (extension_type, msg_type) in [(0, 0x57), (0, 0x71), (0, 0xee), (1, 9)] {
        let id = world.connect(0);
        world.take_events();
        world.send_raw(id, FrameHeader { extension_type, channel_msg: false, msg_type, payload_len: 0 }, &[]);
        assert!(
            matches!(closes(&mut world)[..], [CloseReason::Protocol(ProtocolFault::Malformed(_))]),
            "{extension_type} {msg_type}"
        );
    }
    let id = world.connect(0);
    world.take_events();
    world.send_raw(
        id,
        FrameHeader { extension_type: 0, channel_msg: true, msg_type: 0x1a, payload_len: 3 },
        &[0; 3],
    );
    assert!(matches!(closes(&mut world)[..], [CloseReason::Protocol(ProtocolFault::Malformed(_))]));
}

#[test]
fn unknown_extensions_are_discarded_and_counted() {
    let mut world = World::with_work(config());
    let id = world.connect(0);
    world.open_standard(id);
    world.take();
    for channel_msg in [false, true] {
        let header = FrameHeader { extension_type: 0x4abc, channel_msg, msg_type: 7, payload_len: 5 };
        world.send_raw(id, header, &[64, 0, 0, 0, 1]);
    }
    assert!(world.take().is_empty());
    assert_eq!(world.server.counters().frames_discarded, 2);
    world.open_standard(id);
    assert_eq!(world.names()[0], "OpenStandardMiningChannel.Success", "the connection goes on");
}

#[test]
fn work_selection_is_answered_with_an_error() {
    let mut world = World::with_work(config());
    let id = world.connect(0);
    world.open_extended(id, 8);
    world.take();
    world.send(
        id,
        &SetCustomMiningJob {
            channel_id: 64,
            request_id: 77,
            mining_job_token: b"t",
            version: 0,
            prev_hash: &[0; 32],
            min_ntime: 0,
            nbits: 0,
            coinbase_tx_version: 1,
            coinbase_prefix: b"",
            coinbase_tx_input_n_sequence: 0,
            coinbase_tx_outputs: b"",
            coinbase_tx_locktime: 0,
            merkle_path: [][..].into(),
        },
    );
    let frames = world.take();
    let Message::SetCustomMiningJobError(answer) = frames[0].message() else { panic!("{:?}", frames[0]) };
    assert_eq!((answer.request_id, answer.error_code), (77, &b"jd-not-supported"[..]));
}

fn request(world: &mut World, id: ConnectionId, extensions: &[u16]) -> Vec<Frame> {
    world.send(id, &RequestExtensions { request_id: 5, requested_extensions: extensions.into() });
    world.take()
}

#[test]
fn extensions_are_negotiated() {
    let mut world = World::with_work(config());
    let id = world.connect(0);
    let frames = request(&mut world, id, &[2, 3]);
    let Message::RequestExtensionsSuccess(answer) = frames[0].message() else { panic!("{:?}", frames[0]) };
    assert_eq!((answer.request_id, answer.supported_extensions.iter().collect::<Vec<_>>()), (5, vec![2]));

    let frames = request(&mut world, id, &[9, 3]);
    let Message::RequestExtensionsError(answer) = frames[0].message() else { panic!("{:?}", frames[0]) };
    assert_eq!(answer.unsupported_extensions.iter().collect::<Vec<_>>(), [3, 9]);
    assert!(answer.required_extensions.is_empty());
    world.open_standard(id);
    assert_eq!(world.names()[0], "OpenStandardMiningChannel.Success", "nothing is required");
}

#[test]
fn a_required_extension_must_be_requested() {
    let required = || World::with_work(ServerConfig { required_extensions: vec![2], ..config() });

    let mut world = required();
    let id = world.connect(0);
    assert_eq!(request(&mut world, id, &[2])[0].name(), "RequestExtensions.Success");
    world.open_standard(id);
    assert_eq!(world.names()[0], "OpenStandardMiningChannel.Success");

    let mut world = required();
    let id = world.connect(0);
    let frames = request(&mut world, id, &[3]);
    let Message::RequestExtensionsError(answer) = frames[0].message() else { panic!("{:?}", frames[0]) };
    assert_eq!(answer.unsupported_extensions.iter().collect::<Vec<_>>(), [3]);
    assert_eq!(answer.required_extensions.iter().collect::<Vec<_>>(), [2]);
    assert!(closes(&mut world).is_empty(), "it may try again");
    assert_eq!(request(&mut world, id, &[2])[0].name(), "RequestExtensions.Success");
    world.open_standard(id);
    assert_eq!(world.names()[0], "OpenStandardMiningChannel.Success");

    let mut world = required();
    let id = world.connect(0);
    request(&mut world, id, &[]);
    assert_eq!(request(&mut world, id, &[1])[0].name(), "RequestExtensions.Error");
    assert_eq!(closes(&mut world), [CloseReason::ExtensionRequired(2)], "the retry lacks it");

    for asks in [false, true] {
        let mut world = required();
        let id = world.connect(0);
        if asks {
            request(&mut world, id, &[1]);
        }
        world.open_standard(id);
        assert!(world.take().is_empty());
        assert_eq!(closes(&mut world), [CloseReason::ExtensionRequired(2)]);
    }
}

#[test]
fn a_connection_that_does_nothing_is_closed() {
    let mut world = World::with_work(config());
    let silent = world.server.handle_connect(world.now);
    let bare = world.connect(0);
    let busy = world.connect(0);
    world.open_standard(busy);
    world.take();
    let run = |world: &mut World| {
        let due = world.server.poll_timeout().expect("timers run");
        world.now = world.now.max(due);
        world.timeout();
        world.fan_out();
        world.take();
        closes(world)
    };
    let start = world.now;
    let mut seen = Vec::new();
    while seen.len() < 2 && world.now.since(start) < Duration::from_secs(100) {
        let reasons = run(&mut world);
        seen.extend(reasons.into_iter().map(|reason| (reason, world.now.since(start).as_secs())));
    }
    assert_eq!(seen, [(CloseReason::SetupTimeout, 10), (CloseReason::NoChannel, 20)]);
    world.send(bare, &setup(0));
    world.server.handle_disconnect(silent, &mut world.out);
    world.server.handle_disconnect(bare, &mut world.out);

    // The last channel's close starts the same clock.
    world.now = start + Duration::from_secs(100);
    world.send(busy, &CloseChannel { channel_id: 64, reason_code: b"" });
    let closed_at = world.now;
    let mut reasons = Vec::new();
    while reasons.is_empty() {
        reasons = run(&mut world);
    }
    assert_eq!((reasons, world.now.since(closed_at).as_secs()), (vec![CloseReason::NoChannel], 20));

    let idle = world.connect(0);
    world.open_standard(idle);
    world.take();
    let opened_at = world.now;
    let mut reasons = Vec::new();
    while reasons.is_empty() {
        reasons = run(&mut world);
    }
    assert_eq!((reasons, world.now.since(opened_at).as_secs()), (vec![CloseReason::Idle], 3_600));
}

#[test]
fn a_proxy_is_not_closed_for_one_refused_share_of_each_channel() {
    let mut limited = config();
    limited.limits.errors_max = 5;
    let mut world = World::with_work(limited);
    let id = world.connect(0);
    for _ in 0..100 {
        world.open_standard(id);
    }
    world.take();
    world.take_events();
    let stale = |index: u32| SubmitSharesStandard {
        channel_id: 64 + index,
        sequence_number: 1,
        job_id: 999,
        nonce: 0,
        ntime: 0,
        version: 0,
    };
    for index in 0..100 {
        world.send(id, &stale(index));
    }
    assert_eq!(world.names(), ["SubmitShares.Error"; 100]);
    assert!(world.take_events().is_empty());
    for index in 0..5 {
        world.send(id, &stale(index));
    }
    let events = world.take_events();
    assert!(
        matches!(events.last(), Some(Event::Close { reason: CloseReason::TooManyErrors, .. })),
        "{events:?}"
    );
}

#[test]
fn too_many_errors_end_a_connection() {
    let mut limited = config();
    limited.limits.errors_max = 5;
    let mut world = World::with_work(limited);
    let id = world.connect(0);
    world.open_standard(id);
    world.take();
    world.take_events();
    let bad = SubmitSharesStandard {
        channel_id: 64,
        sequence_number: 1,
        job_id: 999,
        nonce: 0,
        ntime: 0,
        version: 0,
    };
    for _ in 0..5 {
        world.send(id, &bad);
    }
    assert_eq!(world.names(), ["SubmitShares.Error"; 5]);
    world.advance(60.0);
    for _ in 0..4 {
        world.send(id, &bad);
    }
    world.send(id, &UpdateChannel { channel_id: 64, nominal_hash_rate: f32::NAN, maximum_target: &[1; 32] });
    world.take();
    assert!(closes(&mut world).is_empty(), "the window began anew");
    world.send(id, &bad);
    assert_eq!(world.names(), ["SubmitShares.Error"]);
    let events = world.take_events();
    assert!(matches!(
        events[..],
        [Event::ChannelClosed { .. }, Event::Close { reason: CloseReason::TooManyErrors, .. }]
    ));
    world.send(id, &bad);
    assert!(world.take().is_empty());
}
