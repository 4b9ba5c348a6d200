//! Setup, extensions, timeouts, Reconnect and what is not known.

use adit_codec::message::flags::{REQUIRES_FIXED_VERSION, REQUIRES_VERSION_ROLLING};
use adit_codec::message::{
    ChannelEndpointChanged, MessageKind, Reconnect, RequestExtensionsError, RequestExtensionsSuccess,
    SetTarget, SetupConnectionError,
};

use super::*;

fn connected(config: ClientConfig) -> Scenario {
    let mut scenario = Scenario::new(config);
    scenario.client.handle_connected(scenario.now, &mut scenario.out);
    scenario
}

#[test]
fn setup_connection_says_who_we_are() {
    let mut scenario = connected(config(REQUIRES_VERSION_ROLLING, &[]));
    let sent = scenario.sent();
    let Message::SetupConnection(setup) = message(&sent[0]) else { panic!("{sent:?}") };
    assert_eq!((setup.protocol, setup.min_version, setup.max_version), (0, 2, 2));
    assert_eq!((setup.flags, setup.endpoint_port), (REQUIRES_VERSION_ROLLING, 3333));
    assert_eq!((setup.vendor, setup.endpoint_host), (&b"test"[..], &b"pool.example"[..]));
    scenario.receive(&SetupConnectionSuccess { used_version: 2, flags: 0 }).unwrap();
    assert_eq!(scenario.events(), [ClientEvent::SetUp { used_version: 2, flags: 0 }, ClientEvent::Ready]);
}

#[test]
fn setup_answers_that_cannot_be() {
    let mut scenario = connected(config(REQUIRES_VERSION_ROLLING, &[]));
    let success = |used_version, flags| SetupConnectionSuccess { used_version, flags };
    assert_eq!(scenario.receive(&success(3, 0)), Err(ClientFault::VersionNotOffered(3)));
    assert_eq!(
        scenario.receive(&success(2, REQUIRES_FIXED_VERSION)),
        Err(ClientFault::VersionRollingRefused)
    );
    let early = SetTarget { channel_id: 1, maximum_target: &[1; 32] };
    assert_eq!(scenario.receive(&early), Err(ClientFault::Unexpected(MessageKind::SetTarget)));
    scenario.receive(&success(2, 0)).unwrap();
    let twice = Err(ClientFault::Unexpected(MessageKind::SetupConnectionSuccess));
    assert_eq!(scenario.receive(&success(2, 0)), twice);
}

#[test]
fn a_refused_setup_is_reported_in_printable_form() {
    let mut scenario = connected(config(0, &[]));
    // The codec sends no control characters: the code is put in by hand.
    let refusal = SetupConnectionError { flags: 4, error_code: b"no-way" };
    let mut frame = vec![0; frame_len(&refusal)];
    encode_frame(&refusal, &mut frame).unwrap();
    *frame.last_mut().unwrap() = 0x1b;
    scenario.receive_frame(&frame).unwrap();
    let error_code = "no-wa\u{fffd}".into();
    assert_eq!(scenario.events(), [ClientEvent::SetupRefused { flags: 4, error_code }]);
    let request = scenario.client.open_standard(b"u", 1.0, Target::MAX, scenario.now, &mut scenario.out);
    assert_eq!(request, Err(Refusal::NotReady));
}

#[test]
fn setup_must_be_answered_in_time() {
    let mut scenario = connected(config(0, &[]));
    let deadline = scenario.client.poll_timeout().unwrap();
    assert_eq!(deadline, scenario.now + ClientLimits::default().setup_timeout);
    scenario.client.handle_timeout(scenario.now, &mut scenario.out).unwrap();
    let fault = scenario.client.handle_timeout(deadline, &mut scenario.out);
    assert_eq!(fault, Err(ClientFault::Timeout(MessageKind::SetupConnection)));
}

/// Set up with a request for extensions; returns its id.
fn negotiating(extensions: &[u16]) -> (Scenario, u16) {
    let mut scenario = connected(config(0, extensions));
    scenario.receive(&SetupConnectionSuccess { used_version: 2, flags: 0 }).unwrap();
    assert_eq!(scenario.events(), [ClientEvent::SetUp { used_version: 2, flags: 0 }]);
    assert!(!scenario.client.is_ready());
    let request_id = requested(&mut scenario, extensions);
    (scenario, request_id)
}

fn requested(scenario: &mut Scenario, extensions: &[u16]) -> u16 {
    let sent = scenario.sent();
    let Message::RequestExtensions(request) = message(sent.last().unwrap()) else { panic!("{sent:?}") };
    assert_eq!(request.requested_extensions, Seq::from(extensions));
    request.request_id
}

#[test]
fn extensions_are_those_that_both_want() {
    let (mut scenario, request_id) = negotiating(&[2, 3]);
    let supported = [9, 2, 2];
    let answer = RequestExtensionsSuccess { request_id, supported_extensions: Seq::from(&supported[..]) };
    scenario.receive(&answer).unwrap();
    assert_eq!(scenario.events(), [ClientEvent::ExtensionsNegotiated(vec![2]), ClientEvent::Ready]);
    assert_eq!(scenario.client.extensions(), [2]);
    let message = MessageKind::RequestExtensionsSuccess;
    let twice = ClientFault::UnknownRequest { message, request_id: u32::from(request_id) };
    assert_eq!(scenario.receive(&answer), Err(twice));
}

#[test]
fn unsupported_extensions_are_left_out_once() {
    let (mut scenario, request_id) = negotiating(&[2, 3]);
    let error = |request_id, unsupported: &'static [u16]| RequestExtensionsError {
        request_id,
        unsupported_extensions: Seq::from(unsupported),
        required_extensions: Seq::EMPTY,
    };
    scenario.receive(&error(request_id, &[3])).unwrap();
    assert_eq!(scenario.events(), []);
    let request_id = requested(&mut scenario, &[2]);
    scenario.receive(&error(request_id, &[2])).unwrap();
    assert_eq!(scenario.events(), [ClientEvent::ExtensionsNegotiated(vec![]), ClientEvent::Ready]);
    assert_eq!(scenario.sent().len(), 0);
}

#[test]
fn extensions_that_the_server_requires_are_reported() {
    let (mut scenario, request_id) = negotiating(&[2]);
    let required = [5, 2];
    let error = RequestExtensionsError {
        request_id,
        unsupported_extensions: Seq::EMPTY,
        required_extensions: Seq::from(&required[..]),
    };
    scenario.receive(&error).unwrap();
    assert_eq!(scenario.events(), [ClientEvent::ExtensionsRequired(vec![5])]);
}

#[test]
fn a_server_without_extensions_never_answers() {
    let (mut scenario, request_id) = negotiating(&[2]);
    let deadline = scenario.client.poll_timeout().unwrap();
    scenario.client.handle_timeout(deadline, &mut scenario.out).unwrap();
    assert_eq!(scenario.events(), [ClientEvent::ExtensionsNegotiated(vec![]), ClientEvent::Ready]);
    assert_eq!(scenario.client.poll_timeout(), None);
    // Late is better than never.
    let supported = [2];
    scenario
        .receive(&RequestExtensionsSuccess { request_id, supported_extensions: Seq::from(&supported[..]) })
        .unwrap();
    assert_eq!(scenario.events(), [ClientEvent::ExtensionsNegotiated(vec![2])]);
}

#[test]
fn a_changed_endpoint_resets_extensions() {
    let (mut scenario, request_id) = negotiating(&[2]);
    let supported = [2];
    let answer =
        |request_id| RequestExtensionsSuccess { request_id, supported_extensions: Seq::from(&supported[..]) };
    scenario.receive(&answer(request_id)).unwrap();
    let mut scenario = scenario.with_extended(64);
    scenario.receive(&ChannelEndpointChanged { channel_id: 64 }).unwrap();
    assert_eq!(scenario.events(), [ClientEvent::ExtensionsReset { channel: ChannelId(64) }]);
    assert_eq!(scenario.client.extensions(), []);
    assert!(!scenario.client.is_ready());
    let request_id = requested(&mut scenario, &[2]);
    // Again, before the answer: which then says nothing.
    scenario.receive(&ChannelEndpointChanged { channel_id: 64 }).unwrap();
    assert_eq!(scenario.sent().len(), 0);
    scenario.receive(&answer(request_id)).unwrap();
    assert_eq!(scenario.client.extensions(), []);
    let request_id = requested(&mut scenario, &[2]);
    scenario.receive(&answer(request_id)).unwrap();
    assert_eq!(scenario.client.extensions(), [2]);
    let unknown =
        ClientFault::UnknownChannel { message: MessageKind::ChannelEndpointChanged, channel: ChannelId(65) };
    assert_eq!(scenario.receive(&ChannelEndpointChanged { channel_id: 65 }), Err(unknown));
}

#[test]
fn reconnect_is_reported() {
    let mut scenario = Scenario::ready();
    scenario.receive(&Reconnect { new_host: b"other.example", new_port: 0 }).unwrap();
    scenario.receive(&Reconnect { new_host: b"", new_port: 7 }).unwrap();
    let reported = [
        ClientEvent::Reconnect { host: Some("other.example".into()), port: None },
        ClientEvent::Reconnect { host: None, port: Some(7) },
    ];
    assert_eq!(scenario.events(), reported);
    let fault = scenario.receive(&Reconnect { new_host: b"a b", new_port: 0 });
    assert_eq!(fault, Err(ClientFault::ReconnectHost));
}

#[test]
fn unknown_extensions() {
    let mut scenario = Scenario::ready().with_standard(64);
    let frame = |extension: u16, payload: &[u8]| {
        let header = FrameHeader {
            extension_type: extension & 0x7fff,
            channel_msg: extension & 0x8000 != 0,
            msg_type: 9,
            payload_len: payload.len() as u32,
        };
        [&header.to_bytes()[..], payload].concat()
    };
    // For this end of the connection: ignored. For the channel's end: handed on.
    scenario.receive_frame(&frame(0x4001, &[1, 2, 3])).unwrap();
    scenario.receive_frame(&frame(0xc001, &[64, 0, 0, 0, 5])).unwrap();
    scenario.receive_frame(&frame(0xc001, &[99, 0, 0, 0, 5])).unwrap();
    let unknown = ClientEvent::UnknownChannelMessage {
        extension_type: 0x4001,
        msg_type: 9,
        channel: ChannelId(64),
        payload: vec![64, 0, 0, 0, 5],
    };
    assert_eq!(scenario.events(), [unknown]);
    assert_eq!(scenario.client.counters().frames_ignored, 2);
    let fault = scenario.receive_frame(&frame(0xc001, &[64, 0, 0]));
    assert_eq!(fault, Err(ClientFault::NoChannelId { extension_type: 0x4001, msg_type: 9 }));
    // The core has no message of this number.
    assert!(matches!(scenario.receive_frame(&frame(0x8000, &[64, 0, 0, 0])), Err(ClientFault::Malformed(_))));
}

#[test]
fn messages_of_clients_are_not_for_clients() {
    let mut scenario = Scenario::ready();
    let open = adit_codec::message::OpenStandardMiningChannel {
        request_id: 1,
        user_identity: b"",
        nominal_hash_rate: 0.0,
        max_target: &[1; 32],
    };
    let fault = scenario.receive(&open);
    assert_eq!(fault, Err(ClientFault::Unexpected(MessageKind::OpenStandardMiningChannel)));
}

#[test]
fn configurations_that_no_message_can_carry() {
    let with = |change: fn(&mut ClientConfig)| {
        let mut config = config(0, &[]);
        change(&mut config);
        Client::new(config).map(|_| ())
    };
    let long = with(|config| config.firmware = vec![b'f'; 256]);
    assert_eq!(long, Err(ClientConfigError::TooLong { field: "firmware", len: 256 }));
    assert_eq!(with(|config| config.vendor.clear()), Err(ClientConfigError::NoVendor));
    let zero = with(|config| config.limits.active_jobs_max = 0);
    assert_eq!(zero, Err(ClientConfigError::ZeroLimit { limit: "active_jobs_max" }));
}
