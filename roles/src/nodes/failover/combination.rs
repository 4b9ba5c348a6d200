//! What several sources come to: one stream of templates, blocks and faults.
//!
//! A state machine: reports of the sources and time go in, reports go out. Each class of reserve chooses its source for
//! itself ([`Choice`]). Bounds: [`CLASSES_MAX`] classes, and [`BLOCKS_MAX`] blocks that are not reported twice.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use adit_hasher::Digest;
use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use adit_proto::template::{PrevHash, Template, TemplateUpdate};
use tracing::{debug, info, warn};

use super::choice::{Choice, Effect};
use super::origins::{Origin, Origins};
use crate::nodes::{CLASSES_MAX, SourceStanding, SourceUpdate, Standing, TemplateIds};

/// Blocks that are remembered, so that each is reported once.
const BLOCKS_MAX: usize = 512;

/// How a source last said it was.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// It has said nothing.
    Starting,
    Up,
    Down(String),
}

#[derive(Debug)]
struct Member {
    name: String,
    state: State,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Combination {
    members: Vec<Member>,
    classes: BTreeMap<ClassId, Choice>,
    ids: TemplateIds,
    origins: Origins,
    /// Whether the block was last said to be of the best chain; oldest first.
    blocks: VecDeque<(Digest, bool)>,
    /// What was last said of the combination as a whole.
    is_up: Option<bool>,
    updates: VecDeque<SourceUpdate>,
}

impl Combination {
    pub(super) fn new(names: impl Iterator<Item = String>, origins: Origins) -> Self {
        Self {
            members: names.map(|name| Member { name, state: State::Starting }).collect(),
            classes: BTreeMap::new(),
            ids: TemplateIds::default(),
            origins,
            blocks: VecDeque::new(),
            is_up: None,
            updates: VecDeque::new(),
        }
    }

    /// A class is wanted, or wanted with another reserve: what was announced for it is of no use. Says whether the sources
    /// are to be asked.
    pub(super) fn handle_want(&mut self, class: ClassId, reserve: Reserve) -> bool {
        if self.classes.get(&class).is_some_and(|choice| choice.reserve() == reserve) {
            return false;
        }
        if self.classes.len() >= CLASSES_MAX && !self.classes.contains_key(&class) {
            let reason = format!("{CLASSES_MAX} classes of reserve are served already: give up one of them");
            self.updates.push_back(SourceUpdate::Refused { class, reason });
            return false;
        }
        self.classes.insert(class, Choice::new(self.members.len(), reserve));
        true
    }

    /// A class is not wanted any more.
    pub(super) fn handle_unwant(&mut self, class: ClassId) {
        self.classes.remove(&class);
    }

    /// A source reports.
    pub(super) fn handle_update(&mut self, source: usize, update: SourceUpdate, now: Instant) {
        match update {
            SourceUpdate::Up => self.handle_up(source),
            SourceUpdate::Down { reason } => self.handle_down(source, reason, now),
            SourceUpdate::Template { class, update, learned } => {
                let Some(choice) = self.classes.get_mut(&class) else { return };
                match update {
                    TemplateUpdate::NewTemplate(template) => choice.handle_template(source, template, now),
                    TemplateUpdate::SetNewPrevHash(tip) => choice.handle_tip(source, tip, now),
                }
                self.pass_on(class, learned);
            }
            SourceUpdate::Refused { class, reason } => {
                let Some(choice) = self.classes.get_mut(&class) else { return };
                warn!(source = self.members[source].name, %reason, "a template source cannot leave the room that is asked for");
                choice.handle_refusal(source, reason, now);
                self.pass_on(class, now);
            }
            SourceUpdate::BlockConnected { hash, .. } => self.report_block(hash, true, update),
            SourceUpdate::BlockDisconnected { hash, .. } => self.report_block(hash, false, update),
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.classes.values().filter_map(Choice::next_timeout).min()
    }

    /// Time has passed. Whether the transactions of a source's template are at hand, `is_whole` says.
    pub(super) fn handle_timeout(&mut self, now: Instant, is_whole: &dyn Fn(usize, &Template) -> bool) {
        let is_due = |choice: &Choice| choice.next_timeout().is_some_and(|due| due <= now);
        let due: Vec<_> =
            self.classes.iter().filter(|(_, choice)| is_due(choice)).map(|(class, _)| *class).collect();
        for class in due {
            let Some(choice) = self.classes.get_mut(&class) else { continue };
            let before = choice.serving();
            choice.handle_timeout(now, is_whole);
            if let (Some(before), Some(successor)) = (before, choice.serving())
                && before != successor
            {
                info!(
                    source = self.members[successor].name,
                    instead_of = self.members[before].name,
                    "another template source serves: the transactions of the first one's template do not come, and a block of \
                     it would be known to one node alone"
                );
            }
            self.pass_on(class, now);
        }
    }

    /// The next report.
    pub(super) fn poll_update(&mut self) -> Option<SourceUpdate> {
        self.updates.pop_front()
    }

    /// How the sources stand, in the order of the configuration.
    pub(super) fn standings(&self) -> Vec<SourceStanding> {
        let standing = |(source, member): (usize, &Member)| {
            let serves = self.classes.values().any(|choice| choice.serving() == Some(source));
            let standing = match &member.state {
                State::Up if serves => Standing::Serves,
                State::Up => Standing::StandsBy,
                State::Starting | State::Down(_) => Standing::Down,
            };
            SourceStanding { name: member.name.clone(), standing }
        };
        self.members.iter().enumerate().map(standing).collect()
    }

    fn handle_up(&mut self, source: usize) {
        let member = &mut self.members[source];
        if member.state != State::Up {
            member.state = State::Up;
            info!(source = member.name, "template source up");
        }
        if self.is_up != Some(true) {
            self.is_up = Some(true);
            self.updates.push_back(SourceUpdate::Up);
        }
    }

    fn handle_down(&mut self, source: usize, reason: String, now: Instant) {
        let member = &mut self.members[source];
        let state = State::Down(reason);
        if member.state != state {
            if let State::Down(reason) = &state {
                warn!(source = member.name, %reason, "template source down");
            }
            member.state = state;
        }
        let classes: Vec<_> = self.classes.keys().copied().collect();
        for class in classes {
            let Some(choice) = self.classes.get_mut(&class) else { continue };
            let served = choice.serving() == Some(source);
            choice.handle_down(source, now);
            let successor = choice.serving().map(|successor| &self.members[successor].name);
            if served && let Some(successor) = successor {
                info!(
                    source = successor,
                    instead_of = self.members[source].name,
                    "another template source serves"
                );
            }
            self.pass_on(class, now);
        }
        let reason = |member: &Member| match &member.state {
            State::Down(reason) => Some(format!("{}: {reason}", member.name)),
            State::Starting | State::Up => None,
        };
        if self.is_up != Some(false)
            && let Some(reasons) = self.members.iter().map(reason).collect::<Option<Vec<_>>>()
        {
            self.is_up = Some(false);
            self.updates.push_back(SourceUpdate::Down { reason: reasons.join("; ") });
        }
    }

    /// Reports what a class's choice came to, under ids of the combination's own.
    fn pass_on(&mut self, class: ClassId, learned: Instant) {
        let Some(choice) = self.classes.get_mut(&class) else { return };
        let effects: Vec<_> = choice.poll_effects().collect();
        for effect in effects {
            let update = match effect {
                Effect::Template { source, template, future } => {
                    TemplateUpdate::NewTemplate(Arc::new(self.renamed(class, source, &template, future)))
                }
                Effect::Tip { source, tip } => {
                    let Some(template_id) = self.origins.template_id(class, source, tip.template_id) else {
                        continue;
                    };
                    debug!(source = self.members[source].name, template_id, "a tip goes out");
                    TemplateUpdate::SetNewPrevHash(Arc::new(PrevHash { template_id, ..*tip }))
                }
                Effect::Refused { reasons } => {
                    let told = |(source, reason): &(usize, String)| {
                        format!("{}: {reason}", self.members[*source].name)
                    };
                    let reason = reasons.iter().map(told).collect::<Vec<_>>().join("; ");
                    self.updates.push_back(SourceUpdate::Refused { class, reason });
                    continue;
                }
            };
            self.updates.push_back(SourceUpdate::Template { class, update, learned });
        }
    }

    /// A template under an id of the combination's own.
    fn renamed(&mut self, class: ClassId, source: usize, template: &Template, future: bool) -> Template {
        let template_id = self.ids.next_id();
        self.origins.insert(Origin {
            template_id,
            class,
            source,
            source_id: template.template_id,
            merkle_path: template.merkle_path.as_slice().into(),
        });
        Template { template_id, future_template: future, ..template.clone() }
    }

    fn report_block(&mut self, hash: Digest, is_connected: bool, update: SourceUpdate) {
        match self.blocks.iter_mut().rev().find(|(of, _)| *of == hash) {
            Some((_, last)) if *last == is_connected => return,
            Some((_, last)) => *last = is_connected,
            None => {
                if self.blocks.len() >= BLOCKS_MAX {
                    self.blocks.pop_front();
                }
                self.blocks.push_back((hash, is_connected));
            }
        }
        self.updates.push_back(update);
    }
}
