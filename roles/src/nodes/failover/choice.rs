//! Which source serves a class, and what changes when another takes over.
//!
//! A state machine without clock and thread. The first source to show a higher tip serves it; the others stand by. What
//! lags, or lies beside the tip at the same height, is not switched to while the serving source is there: miners would be
//! sent to and fro. When the serving source goes away, the best of the others takes over, unless all lag: then the last
//! template is still worth more than theirs, for [`LAG_PATIENCE`].
//!
//! Bounds: [`FUTURES_MAX`] future templates of each source.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_proto::distribution::Reserve;
use adit_proto::template::{PrevHash, Template};

/// Future templates of one source that wait for their tip.
const FUTURES_MAX: usize = 4;
/// How long sources that lag may take to catch up with what the serving source showed before it went away.
pub(super) const LAG_PATIENCE: Duration = Duration::from_secs(10);

/// What goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// A template of this source, whatever it was when the source gave it.
    Template { source: usize, template: Arc<Template>, future: bool },
    /// A tip that names a template which went out before.
    Tip { source: usize, tip: Arc<PrevHash> },
    /// No source can leave the class's room.
    Refused { reasons: Vec<(usize, String)> },
}

/// What a source shows.
#[derive(Clone, Debug)]
struct Shown {
    tip: Arc<PrevHash>,
    /// Of the block that is mined on the tip.
    height: u32,
    /// The newest for the tip.
    template: Arc<Template>,
}

#[derive(Clone, Debug, Default)]
struct Candidate {
    futures: VecDeque<Arc<Template>>,
    shown: Option<Shown>,
    refusal: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Choice {
    reserve: Reserve,
    candidates: Vec<Candidate>,
    serving: Option<usize>,
    /// The tip that went out last, and the height of the block that is mined on it.
    announced: Option<([u8; 32], u32)>,
    /// Future templates of the serving source that went out ahead of their tip.
    ahead: Vec<u64>,
    /// Since when nobody serves.
    deserted: Option<Instant>,
    effects: Vec<Effect>,
}

impl Choice {
    pub(super) fn new(sources: usize, reserve: Reserve) -> Self {
        Self {
            reserve,
            candidates: vec![Candidate::default(); sources],
            serving: None,
            announced: None,
            ahead: Vec::new(),
            deserted: None,
            effects: Vec::new(),
        }
    }

    /// The room that templates leave.
    pub(super) fn reserve(&self) -> Reserve {
        self.reserve
    }

    /// Who serves; none before the first tip, and while nobody can.
    pub(super) fn serving(&self) -> Option<usize> {
        self.serving
    }

    /// What goes out, in order.
    pub(super) fn poll_effects(&mut self) -> impl Iterator<Item = Effect> {
        self.effects.drain(..)
    }

    /// A source gives a template.
    pub(super) fn handle_template(&mut self, source: usize, template: Arc<Template>) {
        let Some(height) = block_height(&template.coinbase_prefix) else {
            tracing::error!(
                template_id = template.template_id,
                "a template without a height is of no use (BIP34)"
            );
            return;
        };
        let serves = self.serving == Some(source);
        let candidate = &mut self.candidates[source];
        if template.future_template {
            if candidate.futures.len() >= FUTURES_MAX {
                candidate.futures.pop_front();
            }
            candidate.futures.push_back(Arc::clone(&template));
            // One for a tip that is known already waits for its tip: perhaps the source only begins anew.
            if serves && self.announced.is_some_and(|(_, announced)| height > announced) {
                self.ahead.push(template.template_id);
                self.effects.push(Effect::Template { source, template, future: true });
            }
        } else if let Some(shown) = &mut candidate.shown
            && shown.height == height
        {
            shown.template = Arc::clone(&template);
            if serves {
                self.effects.push(Effect::Template { source, template, future: false });
            }
        }
    }

    /// A source shows a tip.
    pub(super) fn handle_tip(&mut self, source: usize, tip: Arc<PrevHash>, now: Instant) {
        let candidate = &mut self.candidates[source];
        let Some(template) = candidate.futures.iter().find(|it| it.template_id == tip.template_id).cloned()
        else {
            tracing::debug!(template_id = tip.template_id, "a tip names a template that is not known");
            return;
        };
        let Some(height) = block_height(&template.coinbase_prefix) else { return };
        candidate.futures.retain(|it| it.template_id > tip.template_id);
        candidate.refusal = None;
        let prev_hash = tip.prev_hash;
        candidate.shown = Some(Shown { tip, height, template });
        let Some((announced, announced_height)) = self.announced else { return self.take(source) };
        let serves = self.serving == Some(source);
        if prev_hash == announced {
            if serves || self.serving.is_none() {
                self.take(source);
            }
        } else if height > announced_height {
            self.take(source);
        } else if serves {
            // Its chain went back or aside. Whoever holds to the tip goes on with it; otherwise it is as the source says.
            let faithful = self.shown_by().find(|(_, shown)| shown.tip.prev_hash == announced);
            match faithful.map(|(other, _)| other) {
                Some(other) if height < announced_height => self.take(other),
                _ => self.take(source),
            }
        } else if self.serving.is_none() {
            self.take_best(now);
        }
    }

    /// A source cannot leave the class's room.
    pub(super) fn handle_refusal(&mut self, source: usize, reason: String, now: Instant) {
        let is_news = self.candidates[source].refusal.is_none();
        self.candidates[source] = Candidate { refusal: Some(reason), ..Candidate::default() };
        self.lose(source, now);
        let reasons = || self.candidates.iter().enumerate().map(|(of, it)| Some((of, it.refusal.clone()?)));
        if is_news && let Some(reasons) = reasons().collect::<Option<Vec<_>>>() {
            self.effects.push(Effect::Refused { reasons });
        }
    }

    /// A source goes away: what it gave is of no use, and it will say anew what it cannot do.
    pub(super) fn handle_down(&mut self, source: usize, now: Instant) {
        self.candidates[source] = Candidate::default();
        self.lose(source, now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let someone_lags = self.serving.is_none() && self.shown_by().next().is_some();
        self.deserted.filter(|_| someone_lags).map(|since| since + LAG_PATIENCE)
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.serving.is_none() {
            self.take_best(now);
        }
    }

    fn shown_by(&self) -> impl Iterator<Item = (usize, &Shown)> {
        self.candidates
            .iter()
            .enumerate()
            .filter_map(|(source, candidate)| Some((source, candidate.shown.as_ref()?)))
    }

    fn lose(&mut self, source: usize, now: Instant) {
        if self.serving == Some(source) {
            self.serving = None;
            self.ahead.clear();
            self.deserted = Some(now);
            self.take_best(now);
        }
    }

    /// Lets the source with the highest tip serve, unless it should have time to catch up.
    fn take_best(&mut self, now: Instant) {
        let announced = self.announced;
        let rank = |shown: &Shown| {
            (shown.height, announced.is_some_and(|(prev_hash, _)| prev_hash == shown.tip.prev_hash))
        };
        // The first of the best, in the order of the configuration.
        let best = self.shown_by().map(|(source, shown)| (rank(shown), std::cmp::Reverse(source))).max();
        let Some(((height, _), std::cmp::Reverse(source))) = best else { return };
        let lags = announced.is_some_and(|(_, announced)| height < announced);
        if !lags || self.deserted.is_none_or(|since| now.duration_since(since) >= LAG_PATIENCE) {
            self.take(source);
        }
    }

    /// Lets a source serve what it shows.
    fn take(&mut self, source: usize) {
        let Some(Shown { tip, height, template }) = self.candidates[source].shown.clone() else { return };
        if self.serving != Some(source) {
            self.ahead.clear();
        }
        self.serving = Some(source);
        self.deserted = None;
        if self.announced.is_some_and(|(announced, _)| announced == tip.prev_hash) {
            self.effects.push(Effect::Template { source, template, future: false });
            return;
        }
        self.announced = Some((tip.prev_hash, height));
        // The newest template, not the one that came with the tip.
        let tip = Arc::new(PrevHash { template_id: template.template_id, ..*tip });
        if !self.ahead.contains(&template.template_id) {
            self.effects.push(Effect::Template { source, template, future: true });
        }
        self.ahead.clear();
        self.effects.push(Effect::Tip { source, tip });
    }
}

/// The height that opens a coinbase's scriptSig (BIP34): a number from 1 to 16 as one opcode, others as a push.
fn block_height(coinbase_prefix: &[u8]) -> Option<u32> {
    const OP_1: u8 = 0x51;
    const OP_16: u8 = 0x60;
    const PUSH_LEN_MAX: usize = 4;
    let (&first, rest) = coinbase_prefix.split_first()?;
    if (OP_1..=OP_16).contains(&first) {
        return Some(u32::from(first - OP_1) + 1);
    }
    let len = usize::from(first);
    let digits = rest.get(..len).filter(|_| (1..=PUSH_LEN_MAX).contains(&len))?;
    Some(digits.iter().rev().fold(0, |height, digit| height << 8 | u32::from(*digit)))
}
