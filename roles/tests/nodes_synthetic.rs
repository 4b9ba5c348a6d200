//! The template source without a node: what it makes, when, and that nothing comes of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod program;
mod tdp;

use std::sync::Arc;
use std::time::Duration;

use adit_codec::keys::AuthorityPublicKey;
use adit_hasher::{Digest, Target, merkle_root_from_path};
use adit_loadgen::stamp::Stamp;
use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use adit_proto::mining::server::Solution;
use adit_proto::template::{PrevHash, Template, TemplateUpdate};
use adit_roles::nodes::synthetic::{SyntheticConfig, SyntheticSource, TRANSACTIONS_MAX};
use adit_roles::nodes::{CLASSES_MAX, SourceUpdate, Submission, TemplateSource, assemble_block};
use bitcoin::consensus::deserialize;
use bitcoin::{Block, Transaction, TxOut};
use crossbeam::channel::Receiver;
use program::{Program, output};
use tdp::{Client, PATIENCE, Told};

const CLASS: ClassId = ClassId(1);
const RESERVE: Reserve = Reserve { reserved_weight: 2_000, max_additional_sigops: 4 };

/// On which nothing comes by itself.
fn quiet(transactions_count: usize) -> SyntheticConfig {
    let never = Duration::from_secs(86_400);
    SyntheticConfig {
        transactions_count,
        template_interval: never,
        tip_interval: never,
        ..SyntheticConfig::default()
    }
}

fn start(config: SyntheticConfig) -> (SyntheticSource, Receiver<SourceUpdate>) {
    let source = SyntheticSource::start(config).unwrap();
    let updates = source.updates();
    assert!(matches!(updates.recv_timeout(PATIENCE), Ok(SourceUpdate::Up)));
    (source, updates)
}

fn next_template(updates: &Receiver<SourceUpdate>, of: ClassId) -> Arc<Template> {
    match updates.recv_timeout(PATIENCE).unwrap() {
        SourceUpdate::Template { class, update: TemplateUpdate::NewTemplate(template), .. }
            if class == of =>
        {
            template
        }
        other => panic!("a template of {of:?}, not {other:?}"),
    }
}

fn next_tip(updates: &Receiver<SourceUpdate>, of: ClassId) -> Arc<PrevHash> {
    match updates.recv_timeout(PATIENCE).unwrap() {
        SourceUpdate::Template { class, update: TemplateUpdate::SetNewPrevHash(tip), .. } if class == of => {
            tip
        }
        other => panic!("a tip of {of:?}, not {other:?}"),
    }
}

/// The moment in a template's coinbase.
fn stamp(template: &Template) -> Stamp {
    Stamp::of_coinbase_suffix(&template.coinbase_tx_outputs).unwrap()
}

/// A coinbase as the template asks for it, without outputs of its own.
fn coinbase(template: &Template) -> Vec<u8> {
    let mut raw = template.coinbase_tx_version.to_le_bytes().to_vec();
    raw.push(1);
    raw.extend([0; 32]);
    raw.extend(u32::MAX.to_le_bytes());
    raw.push(template.coinbase_prefix.len() as u8);
    raw.extend(&template.coinbase_prefix);
    raw.extend(template.coinbase_tx_input_sequence.to_le_bytes());
    raw.push(template.coinbase_tx_outputs_count as u8);
    raw.extend(&template.coinbase_tx_outputs);
    raw.extend(template.coinbase_tx_locktime.to_le_bytes());
    raw
}

fn solution(template: &Template, target: Target) -> Solution {
    let header = [0; 80];
    Solution {
        template_id: template.template_id,
        header,
        digest: Digest::of(&header),
        target,
        coinbase_tx: coinbase(template),
        merkle_path: template.merkle_path.clone(),
        user_identity: Vec::new(),
        worker_identity: Vec::new(),
    }
}

#[test]
fn templates_look_like_mainnets() {
    let (source, updates) = start(SyntheticConfig::default());
    source.want(CLASS, RESERVE);
    let template = next_template(&updates, CLASS);
    let tip = next_tip(&updates, CLASS);
    assert!(template.future_template && tip.template_id == template.template_id);
    assert_eq!(template.merkle_path.len(), 12);
    assert_eq!(template.coinbase_prefix.len(), 4, "a height above a million bytes' push");
    assert_eq!(template.coinbase_tx_value_remaining, 312_500_000 + 4_000 * 1_000);
    assert_eq!(Target::from_nbits(tip.nbits), Ok(tip.target));
    assert_eq!(u32::from(tip.target.to_le_bytes()[0]), 1, "the hardest target");
    assert!(tip.target.to_le_bytes()[1..].iter().all(|byte| *byte == 0));

    // The block that the template stands for holds together: path, transactions, commitment, height.
    let transactions = source.transactions(template.template_id).unwrap();
    let coinbase = coinbase(&template);
    let parsed: Transaction = deserialize(&coinbase).unwrap();
    let mut header = [0; 80];
    let txid = adit_roles::nodes::coinbase_txid(&coinbase).unwrap();
    header[36..68].copy_from_slice(&merkle_root_from_path(&txid, &template.merkle_path));
    let raw = assemble_block(&header, &coinbase, &template.merkle_path, &transactions).unwrap();
    let mut block: Block = deserialize(&raw).unwrap();
    assert_eq!((block.txdata.len(), block.check_merkle_root()), (4_001, true));
    // Miners' coinbases have no witness; whoever makes the block adds the reserved 32 bytes.
    block.txdata[0].input[0].witness.push([0; 32]);
    assert!(block.check_witness_commitment());
    assert!(block.weight().to_wu() < 4_000_000);
    assert_eq!(parsed.lock_time.to_consensus_u32() + 1, 925_001);
    let [commitment, stamped]: [TxOut; 2] = parsed.output.try_into().unwrap();
    assert_eq!((commitment.value, stamped.value), (bitcoin::Amount::ZERO, bitcoin::Amount::ZERO));
    assert!(stamped.script_pubkey.is_op_return());
}

#[test]
fn tips_and_templates_come_when_they_are_asked_for() {
    let (source, updates) = start(quiet(100));
    source.want(CLASS, RESERVE);
    let first = next_template(&updates, CLASS);
    let first_tip = next_tip(&updates, CLASS);

    source.announce_template();
    let second = next_template(&updates, CLASS);
    assert!(!second.future_template && second.template_id > first.template_id);
    assert!(stamp(&second) > stamp(&first) && stamp(&second).age() < PATIENCE);
    let paths = first.merkle_path.iter().zip(&second.merkle_path);
    assert!(paths.clone().count() == 7 && paths.clone().all(|(old, new)| old != new));

    source.announce_tip();
    let third = next_template(&updates, CLASS);
    let tip = next_tip(&updates, CLASS);
    assert!(third.future_template && third.template_id > second.template_id);
    assert_eq!(
        (tip.template_id, third.coinbase_tx_locktime),
        (third.template_id, first.coinbase_tx_locktime + 1)
    );
    let moment = Stamp::of_prev_hash(&tip.prev_hash).unwrap();
    assert!(moment >= stamp(&third) && moment > Stamp::of_prev_hash(&first_tip.prev_hash).unwrap());
    match updates.recv_timeout(PATIENCE).unwrap() {
        SourceUpdate::BlockConnected { height, hash, .. } => {
            assert_eq!((height, hash.0), (third.coinbase_tx_locktime, tip.prev_hash));
        }
        other => panic!("{other:?}"),
    }
    // The transactions of each template are kept for those that come late.
    for template in [&first, &second, &third] {
        assert_eq!(source.transactions(template.template_id).unwrap().len(), 100);
    }
    assert!(source.transactions(7).is_none());
}

#[test]
fn timers_make_templates_between_tips() {
    let (template_interval, tip_interval) = (Duration::from_millis(20), Duration::from_millis(200));
    let (source, updates) = start(SyntheticConfig { template_interval, tip_interval, ..quiet(10) });
    source.want(CLASS, RESERVE);
    let (mut templates, mut tips) = (0, 0);
    while tips < 3 || templates < 3 {
        match updates.recv_timeout(PATIENCE).unwrap() {
            SourceUpdate::Template { update: TemplateUpdate::SetNewPrevHash(_), .. } => tips += 1,
            SourceUpdate::Template { update: TemplateUpdate::NewTemplate(template), .. } => {
                templates += u32::from(!template.future_template);
            }
            _ => {}
        }
    }
}

#[test]
fn classes_get_templates_that_leave_their_room() {
    let (source, updates) = start(quiet(TRANSACTIONS_MAX));
    let large = Reserve { reserved_weight: 4_000_000 - 438 * 10, ..RESERVE };
    source.want(CLASS, RESERVE);
    let full = next_template(&updates, CLASS);
    let tip = next_tip(&updates, CLASS);
    source.want(ClassId(2), large);
    let small = next_template(&updates, ClassId(2));
    assert_eq!(next_tip(&updates, ClassId(2)).prev_hash, tip.prev_hash, "one chain for all");
    let count = |template: &Template| source.transactions(template.template_id).unwrap().len();
    assert_eq!((count(&full), count(&small)), (TRANSACTIONS_MAX, 10));

    // The same again says nothing, another reserve does.
    source.want(CLASS, RESERVE);
    source.want(CLASS, large);
    assert_eq!(count(&next_template(&updates, CLASS)), 10);
    next_tip(&updates, CLASS);
    source.unwant(ClassId(2));
    source.announce_template();
    next_template(&updates, CLASS);
    source.want(ClassId(3), Reserve { reserved_weight: 4_000_001, ..RESERVE });
    let refused = updates.recv_timeout(PATIENCE).unwrap();
    assert!(
        matches!(&refused, SourceUpdate::Refused { class, reason }
        if *class == ClassId(3) && reason.contains("4000001")),
        "{refused:?}"
    );
}

#[test]
fn classes_are_bounded() {
    let (source, updates) = start(quiet(0));
    for class in 0..CLASSES_MAX as u64 {
        source.want(ClassId(class), RESERVE);
        assert!(next_template(&updates, ClassId(class)).merkle_path.is_empty());
        next_tip(&updates, ClassId(class));
    }
    source.want(ClassId(1_000), RESERVE);
    let refused = updates.recv_timeout(PATIENCE).unwrap();
    assert!(
        matches!(&refused, SourceUpdate::Refused { reason, .. } if reason.contains("64 classes")),
        "{refused:?}"
    );
}

#[test]
fn nothing_comes_of_a_solution() {
    let (source, updates) = start(quiet(1));
    source.want(CLASS, RESERVE);
    let template = next_template(&updates, CLASS);
    let refused = |answer: Receiver<Submission>, words: &str| match answer.recv_timeout(PATIENCE).unwrap() {
        Submission::Rejected { reason } => assert!(reason.contains(words), "{reason}"),
        other => panic!("{other}"),
    };
    let hardest = Target::from_nbits(0x0300_0001).unwrap();
    refused(source.submit(Arc::new(solution(&template, hardest))), "does not meet the target");
    refused(source.submit(Arc::new(solution(&template, Target::MAX))), "which nothing should");
    refused(source.submit_block(vec![0; 80].into()), "no chain");
}

/// The whole way: signals make work, and a client that asks gets it.
#[test]
fn a_template_provider_without_a_node_works_at_signals() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let authority: AuthorityPublicKey =
        output(path, &["key", "generate", "--out", "a.key"]).trim().parse().unwrap();
    let text = "[tp]\nlisten = \"127.0.0.1:0\"\n[authority]\nsecret_key_file = \"a.key\"\n\
                [template_source]\nkind = \"synthetic\"\nchain = \"main\"\ntransactions_count = 50\n\
                template_interval_s = 3600\ntip_interval_s = 86400\n";
    std::fs::write(path.join("tp.toml"), text).unwrap();
    let checked = output(path, &["check", "tp.toml"]);
    assert!(checked.contains("no block can come of it"), "{checked}");
    let mut program = Program::start(path, &["tp", "--config", "tp.toml"]);
    let line = program.wait_for("listening address=", PATIENCE);
    let address = line.split("address=").nth(1).unwrap().trim().parse().unwrap();
    let mut client = Client::join(address, &authority, 100);
    client.wait_for_tip();
    let (template, tip) = (client.template.clone().unwrap(), client.tip.clone().unwrap());
    match client.transactions(template.template_id) {
        Told::Transactions(_, transactions) => assert_eq!(transactions.len(), 50),
        other => panic!("{other:?}"),
    }
    program.signal("USR1");
    client.wait_for(|told| matches!(told, Told::Template(_)));
    assert_eq!(client.tip.as_ref(), Some(&tip));
    assert_ne!(client.template.as_ref().unwrap().merkle_path, template.merkle_path);
    program.signal("USR2");
    client.wait_for_tip();
    // What is no block is refused before it comes to the source.
    client.submit(&solution(client.template.clone().as_ref().unwrap(), Target::MAX));
    program.wait_for("does not meet the target of the tip", PATIENCE);
    program.signal("TERM");
    assert_eq!(program.wait(PATIENCE), Some(0), "{}", program.log());
}
