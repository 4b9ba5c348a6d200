//! The combination in virtual time, with sources that are numbers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_hasher::{Digest, Target};
use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use adit_proto::template::{PrevHash, Template, TemplateUpdate};

use super::choice::{LAG_PATIENCE, SILENT_PATIENCE, WHOLE_PATIENCE};
use super::combination::Combination;
use super::origins::Origins;
use crate::nodes::{CLASSES_MAX, FUTURES_MAX, SourceUpdate, Standing};

const CLASS: ClassId = ClassId(3);
const RESERVE: Reserve = Reserve { reserved_weight: 4_000, max_additional_sigops: 400 };

/// What a pool sees, shortened.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// A template of this source with this id there.
    Template(usize, u64, bool),
    /// A tip that names the template before it.
    Tip([u8; 32]),
    Up,
    Down(String),
    Refused(String),
    Block(u32, bool),
}

struct Bench {
    combination: Combination,
    origins: Origins,
    now: Instant,
    last_id: u64,
    /// The future templates seen, by their id.
    futures: Vec<u64>,
    /// Sources whose transactions are at hand.
    whole: Vec<usize>,
}

fn template(source_id: u64, height: u32, future_template: bool) -> Arc<Template> {
    let digits = height.to_le_bytes();
    Arc::new(Template {
        template_id: source_id,
        future_template,
        version: 0x2000_0000,
        coinbase_tx_version: 2,
        coinbase_prefix: [&[4], &digits[..]].concat(),
        coinbase_tx_input_sequence: u32::MAX,
        coinbase_tx_value_remaining: 0,
        coinbase_tx_outputs_count: 0,
        coinbase_tx_outputs: Vec::new(),
        coinbase_tx_locktime: 0,
        merkle_path: Vec::new(),
    })
}

/// The hash of the block below `height` on this branch.
fn prev_hash(height: u32, branch: u8) -> [u8; 32] {
    let mut hash = [branch; 32];
    hash[..4].copy_from_slice(&height.to_le_bytes());
    hash
}

impl Bench {
    fn new(sources: usize) -> Self {
        let origins = Origins::default();
        let names = (0..sources).map(|source| format!("s{source}"));
        let mut combination = Combination::new(names, origins.clone());
        assert!(combination.handle_want(CLASS, RESERVE));
        Self { combination, origins, now: Instant::now(), last_id: 0, futures: Vec::new(), whole: Vec::new() }
    }

    fn give(&mut self, source: usize, update: SourceUpdate) -> Vec<Seen> {
        self.combination.handle_update(source, update, self.now);
        self.seen()
    }

    fn give_template(&mut self, source: usize, template: Arc<Template>) -> Vec<Seen> {
        self.give(
            source,
            SourceUpdate::Template {
                class: CLASS,
                update: TemplateUpdate::NewTemplate(template),
                learned: self.now,
            },
        )
    }

    /// A source shows a tip for the block at `height`, with a template of this id.
    fn tip(&mut self, source: usize, source_id: u64, height: u32, branch: u8) -> Vec<Seen> {
        let mut seen = self.give_template(source, template(source_id, height, true));
        let tip = PrevHash {
            template_id: source_id,
            prev_hash: prev_hash(height, branch),
            header_timestamp: 0,
            nbits: 0,
            target: Target::MAX,
        };
        let update = TemplateUpdate::SetNewPrevHash(Arc::new(tip));
        seen.extend(self.give(source, SourceUpdate::Template { class: CLASS, update, learned: self.now }));
        seen
    }

    fn down(&mut self, source: usize) -> Vec<Seen> {
        self.give(source, SourceUpdate::Down { reason: "gone".to_owned() })
    }

    fn after(&mut self, elapsed: Duration) -> Vec<Seen> {
        self.now += elapsed;
        let whole = self.whole.clone();
        self.combination.handle_timeout(self.now, &|source, _| whole.contains(&source));
        self.seen()
    }

    /// Takes what comes out, as a pool would: ids rise, and a tip names a future template that came before.
    fn seen(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        while let Some(update) = self.combination.poll_update() {
            seen.push(match update {
                SourceUpdate::Template { class, update: TemplateUpdate::NewTemplate(it), .. } => {
                    assert_eq!(class, CLASS);
                    assert!(it.template_id > self.last_id, "ids rise");
                    self.last_id = it.template_id;
                    if it.future_template {
                        self.futures.push(it.template_id);
                    }
                    let origin = self.origins.find(it.template_id).unwrap();
                    Seen::Template(origin.source, origin.source_id, it.future_template)
                }
                SourceUpdate::Template { update: TemplateUpdate::SetNewPrevHash(tip), .. } => {
                    assert!(self.futures.contains(&tip.template_id), "a tip names a future template");
                    self.futures.retain(|id| *id > tip.template_id);
                    Seen::Tip(tip.prev_hash)
                }
                SourceUpdate::Up => Seen::Up,
                SourceUpdate::Down { reason } => Seen::Down(reason),
                SourceUpdate::Refused { reason, .. } => Seen::Refused(reason),
                SourceUpdate::BlockConnected { height, .. } => Seen::Block(height, true),
                SourceUpdate::BlockDisconnected { height, .. } => Seen::Block(height, false),
            });
        }
        seen
    }

    fn standings(&self) -> Vec<Standing> {
        self.combination.standings().into_iter().map(|it| it.standing).collect()
    }
}

/// A template of a source, then the tip that names it.
fn announced(source: usize, source_id: u64, height: u32, branch: u8) -> Vec<Seen> {
    vec![Seen::Template(source, source_id, true), Seen::Tip(prev_hash(height, branch))]
}

#[test]
fn the_first_to_show_a_tip_serves_it_and_the_others_stand_by() {
    let mut bench = Bench::new(3);
    assert_eq!(bench.give(0, SourceUpdate::Up), [Seen::Up]);
    assert_eq!(bench.give(1, SourceUpdate::Up), []);
    assert_eq!(bench.tip(1, 10, 5, 0), announced(1, 10, 5, 0));
    assert_eq!(bench.tip(0, 20, 5, 0), [], "the same tip again is no news");
    assert_eq!(bench.tip(2, 30, 4, 0), [], "one that lags");
    assert_eq!(bench.standings(), [Standing::StandsBy, Standing::Serves, Standing::Down]);
    assert_eq!(bench.give_template(1, template(11, 5, false)), [Seen::Template(1, 11, false)]);
    assert_eq!(bench.give_template(0, template(21, 5, false)), [], "stands by");
    assert_eq!(bench.tip(0, 22, 6, 0), announced(0, 22, 6, 0));
    assert_eq!(bench.tip(1, 12, 6, 0), []);
    assert_eq!(bench.give_template(1, template(13, 6, false)), []);
}

#[test]
fn another_takes_over_on_the_same_tip_with_a_plain_template_and_back() {
    let mut bench = Bench::new(2);
    bench.give(0, SourceUpdate::Up);
    bench.give(1, SourceUpdate::Up);
    bench.tip(0, 1, 5, 0);
    bench.tip(1, 1, 5, 0);
    bench.give_template(1, template(2, 5, false));
    assert_eq!(bench.down(0), [Seen::Template(1, 2, false)], "its newest; no other tip");
    assert_eq!(bench.give(0, SourceUpdate::Up), []);
    assert_eq!(bench.tip(0, 7, 5, 0), [], "who comes back stands by");
    assert_eq!(bench.down(1), [Seen::Template(0, 7, false)]);
    assert_eq!(bench.standings(), [Standing::Serves, Standing::Down]);
}

#[test]
fn another_takes_over_on_another_tip_of_the_same_height_only_when_it_must() {
    let mut bench = Bench::new(2);
    assert_eq!(bench.tip(0, 1, 5, 0), announced(0, 1, 5, 0));
    assert_eq!(bench.tip(1, 1, 5, 1), [], "a fork: no reason to leave");
    assert_eq!(bench.give_template(1, template(2, 5, false)), []);
    assert_eq!(bench.down(0), announced(1, 2, 5, 1), "the newest template goes out as a future one");
    assert_eq!(bench.tip(0, 3, 5, 0), [], "nor to go back");
    assert_eq!(bench.tip(0, 4, 6, 0), announced(0, 4, 6, 0), "until one of them is higher");
}

#[test]
fn those_that_lag_may_catch_up_before_they_serve() {
    let mut bench = Bench::new(3);
    bench.tip(0, 1, 9, 0);
    bench.tip(1, 1, 8, 0);
    assert_eq!(bench.down(0), [], "the last template is worth more than one for a tip of before");
    assert_eq!(bench.after(LAG_PATIENCE / 2), []);
    assert_eq!(bench.tip(1, 2, 9, 0), [Seen::Template(1, 2, false)], "it caught up");
    bench.tip(2, 1, 7, 0);
    assert_eq!(bench.down(1), []);
    assert_eq!(bench.after(LAG_PATIENCE / 2), []);
    assert_eq!(bench.give_template(2, template(2, 7, false)), [], "a sign of life");
    assert_eq!(bench.after(LAG_PATIENCE / 2), announced(2, 2, 7, 0), "better than nothing");
    assert_eq!(bench.combination.next_timeout(), None);
}

#[test]
fn one_that_lags_and_says_nothing_is_the_last_resort() {
    let mut bench = Bench::new(3);
    bench.tip(0, 1, 9, 0);
    bench.tip(1, 1, 3, 0);
    bench.after(Duration::from_secs(60));
    assert_eq!(bench.down(0), []);
    assert_eq!(bench.after(LAG_PATIENCE), [], "perhaps its node hangs");
    assert_eq!(bench.tip(2, 1, 2, 0), announced(2, 1, 2, 0), "lower, but alive");
    bench.tip(0, 2, 9, 0);
    bench.down(2);
    assert_eq!(bench.down(0), []);
    assert_eq!(bench.after(SILENT_PATIENCE - Duration::from_secs(1)), []);
    let due = bench.combination.next_timeout().expect("one is left");
    assert_eq!(due, bench.now + Duration::from_secs(1));
    assert_eq!(bench.after(Duration::from_secs(1)), announced(1, 1, 3, 0));
}

#[test]
fn a_template_whose_transactions_do_not_come_makes_room_for_one_on_the_same_tip() {
    let with_path = |source_id, height, future_template| {
        let path = vec![[source_id as u8; 32]];
        Arc::new(Template { merkle_path: path, ..(*template(source_id, height, future_template)).clone() })
    };
    let mut bench = Bench::new(3);
    bench.tip(0, 1, 5, 0);
    bench.tip(1, 1, 5, 0);
    bench.tip(2, 1, 5, 1);
    bench.give_template(2, with_path(2, 5, false));
    bench.whole = vec![1, 2];
    assert_eq!(bench.combination.next_timeout(), None, "without transactions every block is whole");
    assert_eq!(bench.give_template(0, with_path(2, 5, false)), [Seen::Template(0, 2, false)]);
    assert_eq!(bench.after(WHOLE_PATIENCE), [], "nobody has better on this tip");
    bench.give_template(1, with_path(2, 5, false));
    // Newer templates put nothing off.
    bench.after(WHOLE_PATIENCE / 2);
    assert_eq!(bench.give_template(0, with_path(3, 5, false)), [Seen::Template(0, 3, false)]);
    assert_eq!(bench.after(WHOLE_PATIENCE / 2), [Seen::Template(1, 2, false)]);
    assert_eq!(bench.after(WHOLE_PATIENCE), [], "what is whole stays");
    assert_eq!(bench.combination.next_timeout(), None);
    assert_eq!(bench.give_template(1, with_path(4, 5, false)), [Seen::Template(1, 4, false)]);
    bench.whole = vec![0];
    bench.down(0);
    assert_eq!(bench.after(WHOLE_PATIENCE), []);
}

#[test]
fn a_tip_may_name_the_first_of_many_future_templates() {
    let mut bench = Bench::new(1);
    bench.tip(0, 1, 5, 0);
    let futures = 2..2 + FUTURES_MAX as u64;
    for id in futures {
        assert_eq!(bench.give_template(0, template(id, 6, true)), [Seen::Template(0, id, true)]);
    }
    let tip = PrevHash {
        template_id: 2,
        prev_hash: prev_hash(6, 0),
        header_timestamp: 0,
        nbits: 0,
        target: Target::MAX,
    };
    let update = TemplateUpdate::SetNewPrevHash(Arc::new(tip));
    let seen = bench.give(0, SourceUpdate::Template { class: CLASS, update, learned: bench.now });
    assert_eq!(seen, [Seen::Tip(prev_hash(6, 0))]);
}

#[test]
fn a_source_that_flaps_sends_nobody_to_and_fro() {
    let mut bench = Bench::new(2);
    bench.tip(1, 1, 5, 0);
    bench.tip(0, 1, 5, 0);
    bench.give(0, SourceUpdate::Up);
    bench.give(1, SourceUpdate::Up);
    for round in 0..50 {
        assert_eq!(bench.down(0), []);
        assert_eq!(bench.give(0, SourceUpdate::Up), []);
        assert_eq!(bench.tip(0, 10 + round, 5, (round % 3) as u8), []);
    }
    assert_eq!(bench.standings(), [Standing::StandsBy, Standing::Serves]);
}

#[test]
fn a_serving_source_is_followed_aside_but_not_back_while_another_holds_on() {
    let mut bench = Bench::new(2);
    bench.tip(0, 1, 5, 0);
    assert_eq!(bench.tip(0, 2, 5, 1), announced(0, 2, 5, 1), "its chain went aside");
    bench.tip(1, 1, 5, 1);
    assert_eq!(bench.tip(0, 3, 4, 0), [Seen::Template(1, 1, false)], "the other holds to the tip");
    bench.down(0);
    assert_eq!(bench.tip(1, 2, 3, 0), announced(1, 2, 3, 0), "nobody else: it is as the source says");
}

#[test]
fn future_templates_go_out_ahead_of_their_tip_once() {
    let mut bench = Bench::new(2);
    bench.tip(0, 1, 5, 0);
    assert_eq!(bench.give_template(0, template(2, 6, true)), [Seen::Template(0, 2, true)]);
    assert_eq!(
        bench.give_template(1, template(1, 6, true)),
        [],
        "of a source that stands by only with the tip"
    );
    let tip = PrevHash {
        template_id: 2,
        prev_hash: prev_hash(6, 0),
        header_timestamp: 0,
        nbits: 0,
        target: Target::MAX,
    };
    let update = TemplateUpdate::SetNewPrevHash(Arc::new(tip));
    let seen = bench.give(0, SourceUpdate::Template { class: CLASS, update, learned: bench.now });
    assert_eq!(seen, [Seen::Tip(prev_hash(6, 0))]);
}

#[test]
fn all_down_is_said_once_with_the_reasons() {
    let mut bench = Bench::new(2);
    assert_eq!(bench.down(0), [], "the other has said nothing yet");
    assert_eq!(bench.down(1), [Seen::Down("s0: gone; s1: gone".to_owned())]);
    assert_eq!(bench.down(0), []);
    assert_eq!(bench.give(1, SourceUpdate::Up), [Seen::Up]);
    assert_eq!(bench.tip(1, 1, 5, 0), announced(1, 1, 5, 0));
    assert_eq!(bench.down(1), [Seen::Down("s0: gone; s1: gone".to_owned())]);
    assert_eq!(bench.give(1, SourceUpdate::Up), [Seen::Up]);
    assert_eq!(bench.tip(1, 9, 5, 0), [Seen::Template(1, 9, false)], "the tip is the one that miners have");
}

#[test]
fn a_block_is_reported_once() {
    let mut bench = Bench::new(2);
    let hash = Digest([7; 32]);
    let connected = SourceUpdate::BlockConnected { height: 5, hash, reward_sat: Some(1) };
    let disconnected = SourceUpdate::BlockDisconnected { height: 5, hash };
    assert_eq!(bench.give(0, connected.clone()), [Seen::Block(5, true)]);
    assert_eq!(bench.give(1, connected.clone()), []);
    assert_eq!(bench.give(1, disconnected.clone()), [Seen::Block(5, false)]);
    assert_eq!(bench.give(0, disconnected), []);
    assert_eq!(bench.give(0, connected), [Seen::Block(5, true)]);
}

#[test]
fn a_class_that_one_refuses_is_served_by_another() {
    let mut bench = Bench::new(2);
    let refused = |reason: &str| SourceUpdate::Refused { class: CLASS, reason: reason.to_owned() };
    bench.tip(0, 1, 5, 0);
    bench.tip(1, 1, 5, 0);
    assert_eq!(bench.give(0, refused("too large")), [Seen::Template(1, 1, false)]);
    assert_eq!(bench.give(1, refused("no")), [Seen::Refused("s0: too large; s1: no".to_owned())]);
    assert_eq!(bench.give(1, refused("no")), []);
    assert!(!bench.combination.handle_want(CLASS, RESERVE), "it is wanted already");
    let less = Reserve { reserved_weight: 2_000, ..RESERVE };
    assert!(bench.combination.handle_want(CLASS, less));
    assert_eq!(bench.tip(0, 2, 5, 0), announced(0, 2, 5, 0), "all begins anew");
}

#[test]
fn classes_are_bounded_and_forgotten() {
    let mut bench = Bench::new(1);
    for class in 10..9 + CLASSES_MAX as u64 {
        assert!(bench.combination.handle_want(ClassId(class), RESERVE));
    }
    assert!(!bench.combination.handle_want(ClassId(1_000), RESERVE));
    assert!(matches!(bench.seen().as_slice(), [Seen::Refused(_)]));
    bench.combination.handle_unwant(CLASS);
    assert_eq!(bench.tip(0, 1, 5, 0), [], "nobody asks for it any more");
}

#[test]
fn a_template_without_a_height_is_of_no_use() {
    let mut bench = Bench::new(1);
    for prefix in [vec![], vec![0], vec![5, 1, 2, 3, 4, 5], vec![3, 1]] {
        let template = Template { coinbase_prefix: prefix, ..(*template(1, 1, true)).clone() };
        assert_eq!(bench.give_template(0, Arc::new(template)), []);
    }
    let template = Template { coinbase_prefix: vec![0x60], ..(*template(2, 1, true)).clone() };
    bench.give_template(0, Arc::new(template));
    let tip =
        PrevHash { template_id: 2, prev_hash: [1; 32], header_timestamp: 0, nbits: 0, target: Target::MAX };
    let update = TemplateUpdate::SetNewPrevHash(Arc::new(tip));
    assert_eq!(bench.give(0, SourceUpdate::Template { class: CLASS, update, learned: bench.now }).len(), 2);
    assert_eq!(bench.tip(0, 3, 16, 9).len(), 2, "the opcode for 16 is its height: followed aside");
    assert_eq!(bench.tip(0, 4, 17, 9).len(), 2);
}
