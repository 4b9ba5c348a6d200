//! Both ends in virtual time: one server with a driver that answers as a node would, and any number of clients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use adit_hasher::{Digest, Target};
use adit_proto::distribution::client::{Client, ClientEvent, ClientOutbox};
use adit_proto::distribution::server::{
    ClassId, ConnectionId, Event, Limits, Server, ServerConfig, ServerOutbox, Standing, TransactionsError,
};
use adit_proto::distribution::{Constraints, Reserve};
use adit_proto::mining::server::Solution;
use adit_proto::template::{Template, TemplateUpdate};
use adit_proto::{Instant, Priority};

use crate::{at, client_config, new_tip, split, template};

/// What a client holds.
pub(crate) struct Peer {
    pub(crate) id: ConnectionId,
    pub(crate) client: Client,
    out: ClientOutbox,
    futures: Vec<Arc<Template>>,
    /// The newest template on the tip, and the tip.
    pub(crate) active: Option<(Arc<Template>, u8)>,
    pub(crate) answers: u32,
}

/// What the node made for a class.
struct Made {
    reserve: Reserve,
    future: Option<u64>,
    /// The driver's id of the newest template on the tip.
    newest: u64,
}

pub(crate) struct World {
    pub(crate) server: Server,
    out: ServerOutbox,
    pub(crate) now: Instant,
    pub(crate) peers: Vec<Peer>,
    classes: BTreeMap<ClassId, Made>,
    pub(crate) tip: u8,
    next_template_id: u64,
    /// Templates that the node holds.
    pub(crate) held: BTreeSet<u64>,
    solutions: u32,
    asked: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        let limits = Limits {
            clients_max: 6,
            classes_max: 3,
            future_templates_max: 3,
            templates_max: 40,
            errors_max: u32::MAX,
            ..Limits::default()
        };
        Self {
            server: Server::new(ServerConfig { first_template_id: 1 << 40, limits }).unwrap(),
            out: ServerOutbox::new(),
            now: at(1),
            peers: Vec::new(),
            classes: BTreeMap::new(),
            tip: 1,
            next_template_id: 1,
            held: BTreeSet::new(),
            solutions: 0,
            asked: 0,
        }
    }

    pub(crate) fn join(&mut self, constraints: Constraints) {
        let Some(id) = self.server.handle_connect(self.now) else {
            assert_eq!(self.peers.len(), 6);
            return;
        };
        let mut client = Client::new(client_config(constraints)).unwrap();
        let mut out = ClientOutbox::new();
        client.handle_connected(self.now, &mut out);
        self.peers.push(Peer { id, client, out, futures: Vec::new(), active: None, answers: 0 });
        self.settle();
    }

    pub(crate) fn lose(&mut self, index: usize) {
        let peer = self.peers.remove(index);
        self.server.handle_disconnect(peer.id, self.now, &mut self.out);
        self.settle();
    }

    pub(crate) fn constrain(&mut self, index: usize, constraints: Constraints) {
        let peer = &mut self.peers[index];
        peer.client.set_constraints(constraints, &mut peer.out);
        self.settle();
    }

    fn give(&mut self, class: ClassId, future: bool) -> u64 {
        let template_id = self.next_template_id;
        self.next_template_id += 1;
        let mut template = template(template_id, future);
        // By these a client can tell which class a template was made for.
        let reserve = self.classes[&class].reserve;
        template.coinbase_tx_value_remaining = reserve.reserved_weight;
        template.coinbase_tx_locktime = u32::from(reserve.max_additional_sigops);
        let update = TemplateUpdate::NewTemplate(Arc::new(template));
        self.server.handle_template(class, &update, self.now, &mut self.out).unwrap();
        self.held.insert(template_id);
        let made = self.classes.get_mut(&class).unwrap();
        if future {
            made.future = Some(template_id);
        } else {
            made.newest = template_id;
        }
        template_id
    }

    fn activate(&mut self, class: ClassId, template_id: u64) {
        let update = new_tip(template_id, self.tip);
        self.server.handle_template(class, &update, self.now, &mut self.out).unwrap();
        let made = self.classes.get_mut(&class).unwrap();
        (made.future, made.newest) = (None, template_id);
    }

    fn each_class(&mut self, mut each: impl FnMut(&mut Self, ClassId)) {
        let classes: Vec<ClassId> = self.classes.keys().copied().collect();
        classes.into_iter().for_each(|class| each(self, class));
        self.settle();
    }

    pub(crate) fn new_fees(&mut self) {
        self.each_class(|world, class| {
            world.give(class, false);
        });
    }

    pub(crate) fn new_future(&mut self) {
        self.each_class(|world, class| {
            world.give(class, true);
        });
    }

    pub(crate) fn new_tip(&mut self) {
        self.tip = self.tip.wrapping_add(1);
        self.each_class(|world, class| {
            let waiting = world.classes[&class].future;
            let future = waiting.unwrap_or_else(|| world.give(class, true));
            world.activate(class, future);
        });
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.now = self.now + core::time::Duration::from_secs(seconds);
        self.server.handle_timeout(self.now, &mut self.out);
        for peer in &mut self.peers {
            peer.client.handle_timeout(self.now, &mut peer.out).unwrap();
        }
        self.settle();
    }

    pub(crate) fn request(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        let (template, _) = peer.active.as_ref().unwrap();
        peer.client.request_transaction_data(template.template_id, self.now, &mut peer.out).unwrap();
        let before = peer.answers;
        self.settle();
        assert_eq!(self.peers[index].answers, before + 1);
    }

    /// A client finds a block: its template must be known, current, and the node must still hold it.
    pub(crate) fn solve(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        let (template, _) = peer.active.as_ref().unwrap();
        let mut header = [0; 80];
        header[..4].copy_from_slice(&template.version.to_le_bytes());
        let solution = Solution {
            template_id: template.template_id,
            header,
            digest: Digest([0; 32]),
            target: Target::from_le_bytes([1; 32]),
            coinbase_tx: vec![1; 100],
            merkle_path: Vec::new(),
            user_identity: Vec::new(),
            worker_identity: Vec::new(),
        };
        peer.client.submit_solution(&solution, &mut peer.out).unwrap();
        let before = self.solutions;
        self.settle();
        assert_eq!(self.solutions, before + 1);
    }

    /// Delivers and answers until nothing is left to do, then compares what everybody knows.
    fn settle(&mut self) {
        loop {
            let events: Vec<Event> = self.out.drain_events().collect();
            let is_quiet = events.is_empty() && self.out.is_empty();
            events.into_iter().for_each(|event| self.handle_event(event));
            self.deliver_down();
            let is_quiet = is_quiet && self.peers.iter().all(|peer| peer.out.is_empty());
            if is_quiet {
                break;
            }
            self.deliver_up();
        }
        self.check();
    }

    fn deliver_down(&mut self) {
        // As a driver may that has both kinds waiting.
        for wanted in [Priority::Work, Priority::Reply] {
            for (to, priority, frame) in self.out.frames() {
                let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == to) else { continue };
                if priority == wanted {
                    let (header, payload) = split(frame);
                    peer.client.handle_frame(header, payload, self.now, &mut peer.out).unwrap();
                }
            }
        }
        self.out.clear_frames();
        self.peers.iter_mut().for_each(Peer::take_events);
    }

    fn deliver_up(&mut self) {
        for peer in &mut self.peers {
            for ((), _, frame) in peer.out.frames() {
                let (header, payload) = split(frame);
                self.server.handle_frame(peer.id, header, payload, self.now, &mut self.out);
            }
            peer.out.clear_frames();
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::ClassWanted { class, reserve } => {
                self.classes.insert(class, Made { reserve, future: None, newest: 0 });
                let future = self.give(class, true);
                self.activate(class, future);
            }
            Event::ClassUnwanted { class } => assert!(self.classes.remove(&class).is_some()),
            Event::TemplateReleased { template_id } => {
                assert!(self.held.remove(&template_id), "template {template_id} is released once");
            }
            Event::TransactionsRequested { connection, template_id } => {
                assert!(self.held.contains(&template_id));
                self.asked += 1;
                let (server, out) = (&mut self.server, &mut self.out);
                if self.asked.is_multiple_of(3) {
                    let error = TransactionsError::StaleTemplateId;
                    server.refuse_transactions(connection, template_id, error, out).unwrap();
                } else {
                    let excess = template_id.to_le_bytes();
                    let transactions: [&[u8]; 2] = [b"one", b"two"];
                    server.answer_transactions(connection, template_id, &excess, &transactions, out).unwrap();
                }
            }
            Event::Solution(solution) => {
                let known = solution.template.expect("the template is kept");
                assert_eq!(known.standing, Standing::Current);
                assert_eq!(known.template_id, u64::from(solution.version), "the driver's own id");
                assert!(self.held.contains(&known.template_id));
                self.solutions += 1;
            }
            Event::SetUp { .. } => {}
            Event::Joined { class, .. } => assert!(self.classes.contains_key(&class)),
            Event::Close { connection, .. } => {
                let index = self.peers.iter().position(|peer| peer.id == connection).unwrap();
                let peer = self.peers.remove(index);
                self.server.handle_disconnect(peer.id, self.now, &mut self.out);
            }
        }
    }

    fn check(&self) {
        let classes: BTreeMap<ClassId, (Reserve, usize)> =
            self.server.classes().map(|(id, reserve, members)| (id, (reserve, members))).collect();
        assert!(classes.keys().eq(self.classes.keys()));
        assert_eq!(classes.values().map(|(_, members)| members).sum::<usize>(), self.peers.len());
        assert_eq!(self.server.template_count(), self.held.len());
        assert!(self.held.len() <= 40);
        for peer in &self.peers {
            let (template, tip) = peer.active.as_ref().expect("every client has work");
            assert_eq!(*tip, self.tip);
            let reserve = Reserve {
                reserved_weight: template.coinbase_tx_value_remaining,
                max_additional_sigops: template.coinbase_tx_locktime as u16,
            };
            assert!(reserve.covers(peer.client.constraints().reserve()), "room for what the client adds");
            let newest = self.classes.values().map(|made| made.newest);
            assert!(
                newest.into_iter().any(|newest| newest == u64::from(template.version)),
                "the newest work"
            );
        }
    }
}

impl Peer {
    fn take_events(&mut self) {
        for event in self.out.drain_events() {
            match event {
                ClientEvent::Template(TemplateUpdate::NewTemplate(template)) if template.future_template => {
                    self.futures.push(template);
                }
                ClientEvent::Template(TemplateUpdate::NewTemplate(template)) => {
                    self.active.as_mut().unwrap().0 = template;
                }
                ClientEvent::Template(TemplateUpdate::SetNewPrevHash(prev_hash)) => {
                    let named = self.futures.iter().find(|t| t.template_id == prev_hash.template_id);
                    self.active = Some((named.unwrap().clone(), prev_hash.prev_hash[0]));
                    self.futures.clear();
                }
                ClientEvent::Transactions { excess_data, transactions, .. } => {
                    let (template, _) = self.active.as_ref().unwrap();
                    assert_eq!(excess_data, u64::from(template.version).to_le_bytes());
                    assert!(transactions.iter().eq([b"one", b"two"]), "{transactions:?}");
                    self.answers += 1;
                }
                ClientEvent::TransactionsRefused { error_code, .. } => {
                    assert_eq!(error_code, "stale-template-id");
                    self.answers += 1;
                }
                ClientEvent::SetUp { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn room(max_additional_size: u32, max_additional_sigops: u16) -> Constraints {
    Constraints { max_additional_size, max_additional_sigops }
}

#[test]
fn pools_of_different_needs_follow_the_tip() {
    let mut world = World::new();
    world.join(room(0, 0));
    world.join(room(150, 0));
    world.join(room(2_000, 40));
    assert_eq!(world.server.classes().count(), 2);
    world.new_fees();
    world.new_future();
    world.join(room(2_000, 40));
    world.new_tip();
    (0..4).for_each(|index| world.solve(index));
    (0..4).for_each(|index| world.request(index));
    world.constrain(0, room(2_000, 40));
    world.solve(0);
    world.new_future();
    world.constrain(3, room(0, 0));
    world.new_tip();
    world.new_fees();
    (0..4).for_each(|index| world.solve(index));
    world.lose(1);
    world.lose(1);
    world.new_tip();
    (0..2).for_each(|index| world.request(index));
    world.lose(0);
    world.lose(0);
    world.pass(60);
    assert_eq!(world.server.classes().count(), 0);
    world.pass(10);
    assert!(world.held.is_empty());
}
