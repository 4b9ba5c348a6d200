//! Submitting shares and their answers.

use adit_codec::message::{MessageKind, RequestExtensionsSuccess, SubmitSharesError, SubmitSharesSuccess};
use adit_codec::tlv::user_identity;

use super::*;

const CHANNEL: ChannelId = ChannelId(64);

/// A standard channel with job 1 on a tip of ntime 1,000.
fn standard() -> Scenario {
    let mut scenario = Scenario::ready().with_standard(64);
    scenario.standard_job(64, 1, None).unwrap();
    scenario.prev_hash(64, 1).unwrap();
    scenario.forget();
    scenario
}

fn extended(mut scenario: Scenario) -> Scenario {
    scenario = scenario.with_extended(64);
    scenario.extended_job(64, 1, None).unwrap();
    scenario.prev_hash(64, 1).unwrap();
    scenario.forget();
    scenario
}

impl Scenario {
    fn submit(&mut self, job: u32, ntime: u32, version: u32) -> Result<u32, Refusal> {
        self.client.submit_standard(CHANNEL, JobId(job), 5, ntime, version, self.now, &mut self.out)
    }

    fn submit_extended(&mut self, extranonce: &[u8], worker: Option<&[u8]>) -> Result<u32, Refusal> {
        let (job, now) = (JobId(1), self.now);
        self.client.submit_extended(
            CHANNEL,
            job,
            5,
            1_000,
            0x2000_0000,
            extranonce,
            worker,
            now,
            &mut self.out,
        )
    }

    fn accept(&mut self, last_sequence_number: u32, count: u32) -> Result<(), ClientFault> {
        self.receive(&SubmitSharesSuccess {
            channel_id: 64,
            last_sequence_number,
            new_submits_accepted_count: count,
            new_shares_sum: u64::from(count) * 10,
        })
    }

    fn reject(&mut self, sequence_number: u32) -> Result<(), ClientFault> {
        self.receive(&SubmitSharesError { channel_id: 64, sequence_number, error_code: b"stale-share" })
    }
}

#[test]
fn a_standard_share_is_sent_and_answered() {
    let mut scenario = standard();
    let submitted_at = scenario.now;
    assert_eq!(scenario.submit(1, 1_000, 0x2000_0000), Ok(1));
    assert_eq!(scenario.submit(1, 1_000, 0x3fff_ffe0), Ok(2));
    let sent = scenario.sent();
    let Message::SubmitSharesStandard(share) = message(&sent[1]) else { panic!("{sent:?}") };
    assert_eq!((share.channel_id, share.sequence_number, share.job_id), (64, 2, 1));
    assert_eq!((share.nonce, share.ntime, share.version), (5, 1_000, 0x3fff_ffe0));
    assert_eq!(scenario.client.outstanding(), 2);
    scenario.pass(1);
    scenario.accept(2, 2).unwrap();
    let acknowledged =
        |sequence_number| ClientEvent::ShareAcknowledged { channel: CHANNEL, sequence_number, submitted_at };
    let sum = ClientEvent::SharesAccepted {
        channel: CHANNEL,
        last_sequence_number: 2,
        count: 2,
        difficulty_sum: 20,
    };
    assert_eq!(scenario.events(), [acknowledged(1), acknowledged(2), sum]);
    let counters = scenario.client.counters();
    assert_eq!(
        (counters.shares_submitted, counters.shares_accepted, counters.difficulty_accepted),
        (2, 2, 20)
    );
    assert_eq!(scenario.client.outstanding(), 0);
}

#[test]
fn a_rejected_share_is_reported_with_its_code() {
    let mut scenario = standard();
    let submitted_at = scenario.now;
    for _ in 0..3 {
        scenario.submit(1, 1_000, 0x2000_0000).unwrap();
    }
    scenario.reject(2).unwrap();
    let error_code = "stale-share".into();
    let rejected =
        ClientEvent::ShareRejected { channel: CHANNEL, sequence_number: 2, submitted_at, error_code };
    assert_eq!(scenario.events(), [rejected]);
    scenario.accept(3, 2).unwrap();
    assert_eq!((scenario.client.counters().shares_rejected, scenario.client.outstanding()), (1, 0));
}

#[test]
fn answers_for_nothing_are_faults() {
    let mut scenario = standard();
    scenario.submit(1, 1_000, 0x2000_0000).unwrap();
    let too_many = ClientFault::TooManyAccepted { channel: CHANNEL, count: 2, outstanding: 1 };
    assert_eq!(scenario.accept(1, 2), Err(too_many));
    let unknown = ClientFault::UnknownShare { channel: CHANNEL, sequence_number: 2 };
    assert_eq!(scenario.accept(2, 1), Err(unknown.clone()));
    assert_eq!(scenario.reject(2), Err(unknown));
    scenario.accept(1, 1).unwrap();
    let answered = ClientFault::UnknownShare { channel: CHANNEL, sequence_number: 1 };
    assert_eq!(scenario.reject(1), Err(answered));
    let to_group = SubmitSharesError { channel_id: GROUP.0, sequence_number: 1, error_code: b"" };
    let kind = ClientFault::WrongChannelKind { message: MessageKind::SubmitSharesError, channel: GROUP };
    assert_eq!(scenario.receive(&to_group), Err(kind));
}

#[test]
fn the_ntime_of_a_share_stays_within_the_time_that_has_passed() {
    let mut scenario = standard();
    scenario.pass(10);
    assert_eq!(scenario.submit(1, 999, 0x2000_0000), Err(Refusal::NtimeOutOfRange));
    assert_eq!(scenario.submit(1, 1_011, 0x2000_0000), Err(Refusal::NtimeOutOfRange));
    assert_eq!(scenario.work(64).ntime_max(scenario.now), 1_010);
    scenario.submit(1, 1_010, 0x2000_0000).unwrap();
    scenario.standard_job(64, 2, Some(1_007)).unwrap();
    assert_eq!(scenario.submit(2, 1_006, 0x2000_0000), Err(Refusal::NtimeOutOfRange));
    scenario.submit(2, 1_007, 0x2000_0000).unwrap();
}

#[test]
fn only_free_version_bits_change() {
    let mut scenario = standard();
    for version in [0x2000_0001, 0x6000_0000, 0] {
        assert_eq!(scenario.submit(1, 1_000, version), Err(Refusal::VersionBits), "{version:#x}");
    }
    scenario.submit(1, 1_000, 0x2000_0000 | BIP323_VERSION_MASK).unwrap();

    let flags = adit_codec::message::flags::REQUIRES_FIXED_VERSION;
    let mut scenario = Scenario::ready_with(config(0, &[]), flags).with_standard(64);
    scenario.standard_job(64, 1, None).unwrap();
    scenario.prev_hash(64, 1).unwrap();
    assert_eq!(scenario.submit(1, 1_000, 0x2000_0020), Err(Refusal::VersionBits));
    scenario.submit(1, 1_000, 0x2000_0000).unwrap();
}

#[test]
fn shares_of_jobs_that_are_not_valid_are_not_sent() {
    let mut scenario = standard();
    scenario.standard_job(64, 2, None).unwrap();
    assert_eq!(scenario.submit(2, 1_000, 0x2000_0000), Err(Refusal::FutureJob));
    assert_eq!(scenario.submit(3, 1_000, 0x2000_0000), Err(Refusal::UnknownJob));
    scenario.standard_job(64, 3, Some(1_000)).unwrap();
    scenario.submit(1, 1_000, 0x2000_0000).unwrap();
    scenario.prev_hash(64, 2).unwrap();
    assert_eq!(scenario.submit(1, 1_000, 0x2000_0000), Err(Refusal::UnknownJob));
    scenario.submit(2, 1_000, 0x2000_0000).unwrap();
}

#[test]
fn outstanding_shares_are_bounded() {
    let mut limited = config(0, &[]);
    limited.limits.outstanding_shares_max = 2;
    let mut scenario = Scenario::ready_with(limited, 0).with_standard(64);
    scenario.standard_job(64, 1, None).unwrap();
    scenario.prev_hash(64, 1).unwrap();
    scenario.submit(1, 1_000, 0x2000_0000).unwrap();
    scenario.submit(1, 1_000, 0x2000_0000).unwrap();
    assert_eq!(scenario.submit(1, 1_000, 0x2000_0000), Err(Refusal::TooManyOutstanding));
    scenario.reject(1).unwrap();
    assert_eq!(scenario.submit(1, 1_000, 0x2000_0000), Ok(3));
}

#[test]
fn shares_wait_no_longer_than_their_timeout() {
    let mut impatient = config(0, &[]);
    impatient.limits.share_timeout = Some(core::time::Duration::from_secs(60));
    let mut scenario = Scenario::ready_with(impatient, 0).with_standard(64);
    scenario.standard_job(64, 1, None).unwrap();
    scenario.prev_hash(64, 1).unwrap();
    assert_eq!(scenario.client.poll_timeout(), None);
    scenario.submit(1, 1_000, 0x2000_0000).unwrap();
    scenario.pass(40);
    scenario.submit(1, 1_000, 0x2000_0000).unwrap();
    scenario.accept(1, 1).unwrap();
    scenario.pass(20);
    assert_eq!(scenario.client.poll_timeout(), Some(scenario.now));
    scenario.client.handle_timeout(scenario.now, &mut scenario.out).unwrap();
    scenario.pass(40);
    assert_eq!(scenario.client.poll_timeout(), Some(scenario.now));
    let fault = scenario.client.handle_timeout(scenario.now, &mut scenario.out);
    assert_eq!(fault, Err(ClientFault::Timeout(MessageKind::SubmitSharesStandard)));
}

#[test]
fn an_extended_share_carries_its_extranonce_and_its_worker() {
    let mut scenario = extended(Scenario::ready());
    assert_eq!(scenario.submit_extended(&[1; 5], None), Err(Refusal::BadExtranonceSize));
    assert_eq!(scenario.submit(1, 1_000, 0x2000_0000), Err(Refusal::WrongChannelKind));
    scenario.submit_extended(&[1; 6], Some(b"worker")).unwrap();
    assert_eq!(sent_worker(&mut scenario), None, "not negotiated");

    let mut scenario = Scenario::new(config(0, &[2]));
    scenario.client.handle_connected(scenario.now, &mut scenario.out);
    scenario.receive(&SetupConnectionSuccess { used_version: 2, flags: 0 }).unwrap();
    let supported = [2];
    scenario
        .receive(&RequestExtensionsSuccess { request_id: 1, supported_extensions: Seq::from(&supported[..]) })
        .unwrap();
    let mut scenario = extended(scenario);
    scenario.submit_extended(&[1; 6], Some(b"worker")).unwrap();
    assert_eq!(sent_worker(&mut scenario), Some(b"worker".to_vec()));
    scenario.submit_extended(&[1; 6], None).unwrap();
    assert_eq!(sent_worker(&mut scenario), Some(vec![]), "the field is not optional");
    assert_eq!(scenario.submit_extended(&[1; 6], Some(&[b'w'; 33])), Err(Refusal::TextTooLong));
    scenario.submit_extended(&[1; 6], Some(&[b'w'; 32])).unwrap();
    assert_eq!(sent_worker(&mut scenario), Some(vec![b'w'; 32]));
}

/// The worker's name in the one share that was sent.
fn sent_worker(scenario: &mut Scenario) -> Option<Vec<u8>> {
    let sent = scenario.sent();
    let (header, payload) = sent[0].split_first_chunk::<HEADER_LEN>().unwrap();
    let decoded = Message::decode(FrameHeader::parse(header), payload, Protocol::Mining).unwrap();
    let Message::SubmitSharesExtended(share) = decoded.message else { panic!("{sent:?}") };
    assert_eq!(share.extranonce, [1; 6]);
    user_identity(decoded.trailing, true).unwrap().map(<[u8]>::to_vec)
}

#[test]
fn shares_of_a_closed_channel_stay_unanswered() {
    let mut scenario = standard();
    for _ in 0..2 {
        scenario.submit(1, 1_000, 0x2000_0000).unwrap();
    }
    scenario.receive(&adit_codec::message::CloseChannel { channel_id: 64, reason_code: b"bye" }).unwrap();
    let reason_code = "bye".into();
    assert_eq!(
        scenario.events(),
        [ClientEvent::ChannelClosed { channel: CHANNEL, reason_code, unanswered: 2 }]
    );
    assert_eq!(scenario.client.counters().shares_unanswered, 2);
    scenario.accept(2, 2).unwrap();
    assert_eq!(scenario.submit(1, 1_000, 0x2000_0000), Err(Refusal::UnknownChannel));
}
