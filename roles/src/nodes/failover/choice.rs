//! Which source serves a class, and what changes when another takes over.
//!
//! A state machine without clock and thread. The first source to show a higher tip serves it; the others stand by. What
//! lags, or lies beside the tip at the same height, is not switched to while the serving source is there: miners would be
//! sent to and fro. When the serving source goes away, the best of the others takes over, unless all lag: then the last
//! template is still worth more than theirs, for [`LAG_PATIENCE`], and for [`SILENT_PATIENCE`] where a source shows nothing
//! any more: perhaps its node hangs.
//!
//! A block of which only one node has the transactions is lost with that node. So a source whose template's transactions are
//! not at hand after [`WHOLE_PATIENCE`] leaves its place to one on the same tip whose are.
//!
//! Bounds: [`FUTURES_MAX`] future templates of each source.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_proto::distribution::Reserve;
use adit_proto::template::{PrevHash, Template};

use crate::nodes::FUTURES_MAX;
use crate::nodes::coinbase::pushed_height;

/// How long sources that lag may take to catch up with what the serving source showed before it went away.
pub(super) const LAG_PATIENCE: Duration = Duration::from_secs(10);
/// The same for those that have shown nothing since: an old tip costs every miner its work, and blocks are ten minutes apart.
pub(super) const SILENT_PATIENCE: Duration = Duration::from_secs(600);
/// How long a source may take to have the transactions of the template that it serves.
pub(super) const WHOLE_PATIENCE: Duration = Duration::from_secs(5);

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
    /// When it last gave anything.
    last_sign: Option<Instant>,
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
    /// The template whose transactions are looked for, and when.
    look: Option<(Instant, Arc<Template>)>,
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
            look: None,
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
    pub(super) fn handle_template(&mut self, source: usize, template: Arc<Template>, now: Instant) {
        let Some(height) = pushed_height(&template.coinbase_prefix) else {
            tracing::error!(
                template_id = template.template_id,
                "a template without a height is of no use (BIP34)"
            );
            return;
        };
        let serves = self.serving == Some(source);
        let candidate = &mut self.candidates[source];
        candidate.last_sign = Some(now);
        if template.future_template {
            if candidate.futures.len() >= FUTURES_MAX {
                candidate.futures.pop_front();
            }
            candidate.futures.push_back(Arc::clone(&template));
            // One for a tip that is known already waits for its tip: perhaps the source only begins anew.
            if serves && self.announced.is_some_and(|(_, announced)| height > announced) {
                if self.ahead.len() >= FUTURES_MAX {
                    self.ahead.remove(0);
                }
                self.ahead.push(template.template_id);
                self.effects.push(Effect::Template { source, template, future: true });
            }
        } else if let Some(shown) = &mut candidate.shown
            && shown.height == height
        {
            shown.template = Arc::clone(&template);
            if serves {
                self.look_later(&template, now);
                self.effects.push(Effect::Template { source, template, future: false });
            }
        }
        if self.serving.is_none() {
            self.take_best(now);
        }
    }

    /// A source shows a tip.
    pub(super) fn handle_tip(&mut self, source: usize, tip: Arc<PrevHash>, now: Instant) {
        let candidate = &mut self.candidates[source];
        candidate.last_sign = Some(now);
        let Some(template) = candidate.futures.iter().find(|it| it.template_id == tip.template_id).cloned()
        else {
            tracing::debug!(template_id = tip.template_id, "a tip names a template that is not known");
            return;
        };
        let Some(height) = pushed_height(&template.coinbase_prefix) else { return };
        candidate.futures.retain(|it| it.template_id > tip.template_id);
        candidate.refusal = None;
        let prev_hash = tip.prev_hash;
        candidate.shown = Some(Shown { tip, height, template });
        let Some((announced, announced_height)) = self.announced else { return self.take(source, now) };
        let serves = self.serving == Some(source);
        if prev_hash == announced {
            if serves || self.serving.is_none() {
                self.take(source, now);
            }
        } else if height > announced_height {
            self.take(source, now);
        } else if serves {
            // Its chain went back or aside. Whoever holds to the tip goes on with it; otherwise it is as the source says.
            let faithful = self.shown_by().find(|(_, shown)| shown.tip.prev_hash == announced);
            match faithful.map(|(other, _)| other) {
                Some(other) if height < announced_height => self.take(other, now),
                _ => self.take(source, now),
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
        match self.serving {
            Some(_) => self.look.as_ref().map(|(due, _)| *due),
            None => self.shown_by().filter_map(|(source, _)| self.lag_ends(source)).min(),
        }
    }

    /// Time has passed. Whether the transactions of a source's template are at hand, `is_whole` says.
    pub(super) fn handle_timeout(&mut self, now: Instant, is_whole: &dyn Fn(usize, &Template) -> bool) {
        let Some(source) = self.serving else { return self.take_best(now) };
        let Some((_, looked_for)) = self.look.take_if(|(due, _)| *due <= now) else { return };
        if !is_whole(source, &looked_for) {
            let is_better = |(other, shown): &(usize, &Shown)| {
                *other != source
                    && self.announced.is_some_and(|(announced, _)| announced == shown.tip.prev_hash)
                    && !shown.template.merkle_path.is_empty()
                    && is_whole(*other, &shown.template)
            };
            let better = self.shown_by().find(is_better).map(|(other, _)| other);
            if let Some(other) = better {
                return self.take(other, now);
            }
        }
        // The next look is for the newest template, unless that is the one that was found.
        let newest = self.candidates[source].shown.as_ref().map(|shown| Arc::clone(&shown.template));
        if let Some(newest) = newest
            && !(Arc::ptr_eq(&newest, &looked_for) && is_whole(source, &newest))
        {
            self.look_later(&newest, now);
        }
    }

    /// Has the transactions of the template that is served looked for, if that is not under way.
    fn look_later(&mut self, template: &Arc<Template>, now: Instant) {
        if self.look.is_none() && !template.merkle_path.is_empty() {
            self.look = Some((now + WHOLE_PATIENCE, Arc::clone(template)));
        }
    }

    fn shown_by(&self) -> impl Iterator<Item = (usize, &Shown)> {
        self.candidates
            .iter()
            .enumerate()
            .filter_map(|(source, candidate)| Some((source, candidate.shown.as_ref()?)))
    }

    /// When a source that lags may serve all the same; none while another serves.
    fn lag_ends(&self, source: usize) -> Option<Instant> {
        let since = self.deserted?;
        let lives = self.candidates[source].last_sign.is_some_and(|last| last > since);
        Some(since + if lives { LAG_PATIENCE } else { SILENT_PATIENCE })
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
        let may_serve = |(source, shown): &(usize, &Shown)| {
            let lags = announced.is_some_and(|(_, announced)| shown.height < announced);
            !lags || self.lag_ends(*source).is_none_or(|end| now >= end)
        };
        // The first of the best, in the order of the configuration.
        let best = self.shown_by().filter(may_serve);
        let best = best.map(|(source, shown)| (rank(shown), std::cmp::Reverse(source))).max();
        if let Some((_, std::cmp::Reverse(source))) = best {
            self.take(source, now);
        }
    }

    /// Lets a source serve what it shows.
    fn take(&mut self, source: usize, now: Instant) {
        let Some(Shown { tip, height, template }) = self.candidates[source].shown.clone() else { return };
        if self.serving != Some(source) {
            self.ahead.clear();
        }
        self.serving = Some(source);
        self.deserted = None;
        self.look = None;
        self.look_later(&template, now);
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
