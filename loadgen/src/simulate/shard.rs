//! One thread of the generator: its connections, their sockets, and the clock by which everything happens.
//!
//! The thread owns its connections and devices and shares nothing with others but [`Control`]. A round is: begin connections,
//! carry out events, seal what is due, give each connection's bytes to the kernel as one write, take what arrived. The
//! sockets are the engine's [`Transport`]: direct descriptors, so that connections are not limited by open files, and one
//! system call for the writes of many connections.
//!
//! A socket is attached while it still connects: the kernel holds its first send back until the connection is there.
//!
//! Bounds: [`OUTSTANDING_MAX`] shares without an answer, [`BEGUN_PER_ROUND_MAX`] connections begun in a round.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use adit_codec::noise::{ACT2_LEN, EphemeralKey, Initiator, SpareBuffers};
use adit_engine::transport::{Budget, Sizes, SocketId, Transport, Wake, dial};
use ring::rand::{SecureRandom, SystemRandom};

use super::arrivals::{Arrivals, Random, Rates};
use super::connection::{Connection, Handshake, Phase};
use super::device::{Device, Outstanding};
use super::scenario::{Event, EventKind, nanos};
use super::spreads::{Spreads, Template};
use super::{Control, Plan, Progress};
use crate::report::{Latencies, Second, Tally, count};
use crate::stamp::Stamp;

/// Shares of a thread that wait for answers: 16 bytes each.
const OUTSTANDING_MAX: usize = 1 << 26;
/// Buffers kept for frames that came in parts.
const PARTIALS_MAX: usize = 1_024;
/// Connections begun in one round.
const BEGUN_PER_ROUND_MAX: usize = 64;
/// Before a connection that failed is tried again.
const RETRY_NS: u64 = 1_000_000_000;
/// The longest sleep: signals and the start are looked for this often.
const SLEEP_NS_MAX: u64 = 50_000_000;
/// A tip comes to all connections of a ring at once, in a few hundred bytes each: many small buffers take more of them than a
/// few large ones.
const RECEIVE_BUFFERS: u16 = 4_096;
const RECEIVE_BUFFER_LEN: usize = 1_024;
const COMPLETIONS: u32 = 8_192;
/// What one look at the sockets may take.
const BUDGET: Budget = Budget { completions: 4_096, bytes: 4 << 20 };
const SECOND_NS: u64 = 1_000_000_000;

/// No connection.
pub(super) const NONE: u32 = u32::MAX;

/// When shares are mined, on the run's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) go_ns: u64,
    measured_ns: u64,
    pub(super) end_ns: u64,
    drained_ns: u64,
}

/// A thread's connections and devices; the handler of its sockets.
pub(super) struct Simulated {
    pub(super) plan: Arc<Plan>,
    /// Number of the first connection, among those of all threads.
    first_connection: u32,
    /// The time, as of the last look at the clock.
    pub(super) now_ns: u64,
    pub(super) window: Option<Window>,
    pub(super) connections: Vec<Connection>,
    /// Those of a connection lie together.
    pub(super) devices: Vec<Device>,
    pub(super) outstanding: Outstanding,
    pub(super) by_socket: Vec<u32>,
    pub(super) dirty: Vec<u32>,
    pub(super) arrivals: Arrivals,
    pub(super) random: Random,
    waiting_to_join: VecDeque<u32>,
    retries: VecDeque<(u64, u32)>,
    joining: u32,
    joined: u32,
    serving: u64,
    pub(super) channels: u64,
    /// Sockets to be closed, and those to be read no more (or again) once the transport is free.
    closing: Vec<SocketId>,
    pausing: Vec<(SocketId, bool)>,
    /// Slow readers and when they read again.
    paused: Vec<(u64, u32)>,
    pub(super) spares: Vec<Vec<u8>>,
    pub(super) partials: SpareBuffers,
    pub(super) second: Second,
    pub(super) tips: Spreads<[u8; 32]>,
    pub(super) templates: Spreads<Template>,
    pub(super) tally: Tally,
}

/// A thread of the generator.
pub(super) struct Shard {
    transport: Transport,
    sockets_max: u32,
    wake: Arc<Wake>,
    simulated: Simulated,
    control: Arc<Control>,
    progress: Sender<Progress>,
    /// Connections begun so far at the join's rate.
    begun_at_rate: u64,
    begin_ns: u64,
    has_told_joined: bool,
    /// By time.
    events: VecDeque<Event>,
}

impl Shard {
    /// Prepares `connections` connections, the first of which has the number `first` of all.
    ///
    /// # Errors
    /// io_uring is not to be had.
    pub(super) fn new(
        plan: &Arc<Plan>,
        first: u32,
        connections: u32,
        control: &Arc<Control>,
        progress: Sender<Progress>,
    ) -> io::Result<Self> {
        let wake = Arc::new(Wake::new()?);
        // Sockets that are being closed hold their place for a moment.
        let sockets_max = connections + connections / 8 + 16;
        let sizes = Sizes {
            buffers: RECEIVE_BUFFERS,
            buffer_len: RECEIVE_BUFFER_LEN,
            completions: COMPLETIONS,
            ..Sizes::for_sockets(sockets_max)
        };
        let transport = Transport::new(sizes, &wake)?;
        let mut events: Vec<Event> = plan.scenario.event.clone();
        events.sort_by(|one, other| one.at_s.total_cmp(&other.at_s));
        Ok(Self {
            transport,
            sockets_max,
            wake,
            simulated: Simulated::new(plan, first, connections),
            control: Arc::clone(control),
            progress,
            begun_at_rate: 0,
            begin_ns: 0,
            has_told_joined: false,
            events: events.into(),
        })
    }

    /// Runs to the end and gives what was counted.
    ///
    /// # Errors
    /// The ring is of no use any more.
    pub(super) fn run(mut self) -> io::Result<Tally> {
        self.begin_ns = self.control.clock.now_ns();
        self.simulated.second = Second { latency: Latencies::coarse(), ..Second::default() };
        loop {
            self.wake.acknowledge();
            self.simulated.now_ns = self.control.clock.now_ns();
            self.start_mining();
            self.begin_connections();
            self.carry_out_events();
            self.simulated.mine_open_loop();
            self.flush();
            let worked = self.transport.poll(&mut self.simulated, BUDGET)?;
            self.simulated.now_ns = self.control.clock.now_ns();
            self.close_sockets();
            self.tell_second();
            if self.is_over() {
                return Ok(self.finish());
            }
            let may_sleep = !self.simulated.plan.scenario.busy_poll;
            if may_sleep && !worked && self.simulated.dirty.is_empty() {
                let sleep_ns = self.next_ns().saturating_sub(self.control.clock.now_ns());
                if sleep_ns > 0 {
                    self.transport.wait(Duration::from_nanos(sleep_ns))?;
                }
            }
        }
    }

    /// Looks whether shares begin.
    fn start_mining(&mut self) {
        let simulated = &mut self.simulated;
        if !self.has_told_joined {
            let is_late = simulated.now_ns - self.begin_ns >= nanos(simulated.plan.scenario.join.timeout_s);
            let all = simulated.joined as usize == simulated.connections.len();
            if all || is_late {
                self.has_told_joined = true;
                // Nobody listens any more if the run was given up.
                let _ = self.progress.send(Progress::Joined);
            }
        }
        let go_ns = self.control.go_ns().filter(|go_ns| *go_ns <= simulated.now_ns);
        if let (None, Some(go_ns)) = (simulated.window, go_ns) {
            let scenario = &simulated.plan.scenario;
            let measured_ns = go_ns + nanos(scenario.warmup_s);
            let end_ns = measured_ns + nanos(scenario.duration_s);
            let drained_ns = end_ns + nanos(scenario.drain_s);
            simulated.window = Some(Window { go_ns, measured_ns, end_ns, drained_ns });
            for index in 0..simulated.connections.len() {
                simulated.schedule(index, go_ns);
                simulated.mark_dirty(index);
            }
        }
    }

    /// Begins connections, as the join's rate and bound allow, and again those that failed.
    fn begin_connections(&mut self) {
        let simulated = &mut self.simulated;
        while let Some(&(at_ns, index)) = simulated.retries.front()
            && at_ns <= simulated.now_ns
        {
            simulated.retries.pop_front();
            simulated.waiting_to_join.push_back(index);
        }
        let join = &simulated.plan.scenario.join;
        let threads = simulated.plan.threads;
        let in_flight_max = match join.in_flight {
            0 => u32::MAX,
            in_flight => in_flight.div_ceil(threads),
        };
        let allowed = match join.rate_per_s {
            rate if rate > 0.0 => {
                let elapsed_s = (simulated.now_ns - self.begin_ns) as f64 / 1e9;
                (elapsed_s * rate / f64::from(threads)) as u64 + 1
            }
            _ => u64::MAX,
        };
        for _ in 0..BEGUN_PER_ROUND_MAX {
            let has_room = self.transport.sockets() < self.sockets_max;
            if simulated.joining >= in_flight_max || self.begun_at_rate >= allowed || !has_room {
                break;
            }
            let Some(index) = simulated.waiting_to_join.pop_front() else { break };
            self.begun_at_rate += 1;
            if let Err(error) = simulated.begin(index as usize, &mut self.transport) {
                count(&mut simulated.tally.connections.errors, &format!("no connection: {error}"));
                simulated.retries.push_back((simulated.now_ns + RETRY_NS, index));
            }
        }
    }

    fn carry_out_events(&mut self) {
        let simulated = &mut self.simulated;
        let Some(Window { measured_ns, end_ns, .. }) = simulated.window else { return };
        let now_ns = simulated.now_ns;
        if now_ns >= end_ns {
            return;
        }
        while let Some(event) = self.events.front()
            && measured_ns + nanos(event.at_s) <= now_ns
        {
            simulated.carry_out(event);
            self.events.pop_front();
        }
        let mut index = 0;
        while let Some(&(until_ns, connection)) = simulated.paused.get(index) {
            if until_ns > now_ns {
                index += 1;
                continue;
            }
            simulated.paused.swap_remove(index);
            let connection = &mut simulated.connections[connection as usize];
            if let (true, Some(socket)) = (connection.is_paused, connection.socket) {
                connection.is_paused = false;
                simulated.pausing.push((socket, false));
            }
        }
    }

    /// Gives what is pending to the kernel, one write per connection.
    fn flush(&mut self) {
        let simulated = &mut self.simulated;
        let mut dirty = std::mem::take(&mut simulated.dirty);
        for index in dirty.drain(..) {
            let index = index as usize;
            simulated.connections[index].is_dirty = false;
            if simulated.connections[index].is_sending {
                continue;
            }
            simulated.mine_closed_loop(index);
            let connection = &mut simulated.connections[index];
            if let Some(socket) = connection.socket.filter(|_| !connection.pending.is_empty()) {
                connection.is_sending = true;
                self.transport.send(socket, std::mem::take(&mut connection.pending));
            }
        }
        // What became dirty meanwhile is for the next round.
        dirty.append(&mut simulated.dirty);
        simulated.dirty = dirty;
    }

    fn close_sockets(&mut self) {
        for (socket, pauses) in self.simulated.pausing.drain(..) {
            if pauses {
                self.transport.pause(socket);
            } else {
                self.transport.resume(socket);
            }
        }
        for socket in self.simulated.closing.drain(..) {
            self.transport.close(socket);
        }
    }

    fn tell_second(&mut self) {
        let simulated = &mut self.simulated;
        let at_s = simulated.now_ns / SECOND_NS;
        if at_s <= simulated.second.at_s {
            return;
        }
        let next = Second { at_s, latency: Latencies::coarse(), ..Second::default() };
        let mut second = std::mem::replace(&mut simulated.second, next);
        simulated.fill_gauges(&mut second);
        simulated.tally.seconds.push(second.clone());
        // Nobody listens any more if the run was given up.
        let _ = self.progress.send(Progress::Second(second));
    }

    /// When there is something to do, if nothing arrives.
    fn next_ns(&self) -> u64 {
        let simulated = &self.simulated;
        let now_ns = simulated.now_ns;
        let join = &simulated.plan.scenario.join;
        let rate = join.rate_per_s / f64::from(simulated.plan.threads);
        let next_join = (rate > 0.0 && !simulated.waiting_to_join.is_empty())
            .then(|| self.begin_ns + (self.begun_at_rate as f64 / rate * 1e9) as u64);
        let candidates = [
            next_join,
            simulated.arrivals.next_due_ns(),
            simulated.retries.front().map(|(at_ns, _)| *at_ns),
            simulated
                .window
                .zip(self.events.front())
                .map(|(window, event)| window.measured_ns + nanos(event.at_s)),
            simulated.window.map(|window| window.end_ns).filter(|end_ns| *end_ns > now_ns),
            Some((simulated.second.at_s + 1) * SECOND_NS),
        ];
        candidates.into_iter().flatten().min().unwrap_or(now_ns).min(now_ns + SLEEP_NS_MAX)
    }

    fn is_over(&self) -> bool {
        if self.control.is_stopped() {
            return true;
        }
        let simulated = &self.simulated;
        let Some(Window { end_ns, drained_ns, .. }) = simulated.window else { return false };
        let last_due_ns = end_ns + simulated.batch_ns();
        let nothing_due = simulated.arrivals.next_due_ns().is_none_or(|due_ns| due_ns >= last_due_ns);
        let is_answered = simulated.outstanding.len() == 0 && nothing_due;
        simulated.now_ns >= drained_ns
            || (simulated.now_ns >= end_ns && is_answered && simulated.blocked() == 0)
    }

    fn finish(mut self) -> Tally {
        let clock = self.control.clock;
        let simulated = &mut self.simulated;
        simulated.count_unsent();
        let outstanding = simulated.devices.iter().map(|device| simulated.outstanding.count(device)).sum();
        let mut second = std::mem::take(&mut simulated.second);
        simulated.fill_gauges(&mut second);
        let connections = simulated.connections.len() as u64;
        let devices = simulated.devices.len() as u64;
        let Simulated { mut tally, tips, templates, plan, serving, .. } = self.simulated;
        tally.join.connections_asked = connections;
        tally.join.channels_asked = devices;
        tally.seconds.push(second);
        tally.shares.outstanding = outstanding;
        tally.shares.check_sum();
        tally.connections.open_at_end = serving;
        let unix_ns = |ns| clock.unix_ns(ns);
        tally.tips = tips.finish(unix_ns, |key| (hex(&key), Stamp::of_prev_hash(&key)));
        tally.templates =
            templates.finish(unix_ns, |Template { digest, made }| (hex(&digest.to_be_bytes()), made));
        if plan.scenario.duration_s > 0.0 {
            tally.measured.accepted_per_s = tally.measured.accepted as f64 / plan.scenario.duration_s;
        }
        tally
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Simulated {
    fn new(plan: &Arc<Plan>, first_connection: u32, connections: u32) -> Self {
        let scenario = &plan.scenario;
        let channels = scenario.channels_per_connection;
        let rates = Rates::new(channels, scenario.shares.per_minute / 60e9);
        let devices = connections as usize * channels as usize;
        Self {
            plan: Arc::clone(plan),
            first_connection,
            now_ns: 0,
            window: None,
            connections: (0..connections).map(|_| Connection::new(rates)).collect(),
            devices: vec![Device::new(); devices],
            outstanding: Outstanding::new(OUTSTANDING_MAX),
            by_socket: Vec::new(),
            dirty: Vec::new(),
            arrivals: Arrivals::default(),
            random: Random::new(u64::from(first_connection) << 32 | 0x5eed),
            waiting_to_join: (0..connections).collect(),
            retries: VecDeque::new(),
            joining: 0,
            joined: 0,
            serving: 0,
            channels: 0,
            closing: Vec::new(),
            pausing: Vec::new(),
            paused: Vec::new(),
            spares: Vec::new(),
            partials: SpareBuffers::new(PARTIALS_MAX),
            second: Second::default(),
            tips: Spreads::new(),
            templates: Spreads::new(),
            tally: Tally::default(),
        }
    }

    /// Where a connection's devices begin.
    pub(super) fn first_device(&self, index: usize) -> usize {
        index * self.plan.scenario.channels_per_connection as usize
    }

    /// Has a connection's bytes sent, or its shares sealed, in the next round.
    pub(super) fn mark_dirty(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(u32::try_from(index).expect("connections are counted in u32"));
        }
    }

    /// Whether a share was meant for the measured window.
    pub(super) fn is_measured(&self, at_ns: u64) -> bool {
        self.window.is_some_and(|window| (window.measured_ns..window.end_ns).contains(&at_ns))
    }

    fn fill_gauges(&self, second: &mut Second) {
        second.connections = self.serving;
        second.channels = self.channels;
        second.outstanding = self.outstanding.len() as u64;
    }

    /// Connects a connection and sends act 1.
    fn begin(&mut self, index: usize, transport: &mut Transport) -> io::Result<()> {
        let number = self.first_connection + u32::try_from(index).expect("connections are counted in u32");
        let pool = self.plan.pool;
        let source = self.plan.scenario.source_address(number, pool.ip());
        let socket = dial(pool, source)?;
        let mut random = [0; 64];
        let ephemeral = SystemRandom::new()
            .fill(&mut random)
            .ok()
            .and_then(|()| EphemeralKey::new(&random).ok())
            .ok_or_else(|| io::Error::other("the system gives no randomness"))?;
        let socket = transport.attach(socket)?;
        if self.by_socket.len() <= socket.index() {
            self.by_socket.resize(socket.index() + 1, NONE);
        }
        self.by_socket[socket.index()] = u32::try_from(index).expect("connections are counted in u32");
        let (initiator, act1) = Initiator::new(ephemeral);
        let connection = &mut self.connections[index];
        connection.socket = Some(socket);
        connection.phase =
            Phase::Handshake(Box::new(Handshake { initiator, act2: [0; ACT2_LEN], received: 0 }));
        connection.pending.extend_from_slice(&act1);
        connection.is_joining = true;
        if connection.begun_ns == 0 {
            connection.begun_ns = self.now_ns;
        }
        self.joining += 1;
        self.tally.connections.begun += 1;
        self.mark_dirty(index);
        Ok(())
    }

    /// Called with each activation of a job.
    pub(super) fn look_whether_served(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if connection.is_served {
            return;
        }
        connection.is_served = true;
        let after_ns = self.now_ns - connection.begun_ns;
        self.serving += 1;
        let times = self.join_times(index);
        times.connections_served += 1;
        times.first_job.record(after_ns);
        self.look_whether_joined(index);
        if let Some(Window { go_ns, .. }) = self.window {
            self.schedule(index, go_ns.max(self.now_ns));
            self.mark_dirty(index);
        }
    }

    /// Called with each answer to an opening, and with the first job.
    pub(super) fn look_whether_joined(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let is_answered = connection.answered == self.plan.scenario.channels_per_connection;
        let is_refused = is_answered && connection.channels == 0;
        if connection.is_joining && (connection.is_served || is_refused) {
            connection.is_joining = false;
            self.joining -= 1;
        }
        if is_answered && connection.is_served && !connection.is_joined {
            connection.is_joined = true;
            self.joined += 1;
        }
    }

    /// Gives a connection up. Unless it is over for good, it is begun again.
    fn end(&mut self, index: usize, by_pool: bool, for_good: bool) {
        let first = self.first_device(index);
        let mut lost = 0;
        for place in first..first + self.plan.scenario.channels_per_connection as usize {
            lost += self.forget_device(place);
        }
        let connection = &mut self.connections[index];
        if let Some(socket) = connection.socket {
            self.by_socket[socket.index()] = NONE;
            self.closing.push(socket);
        }
        self.joining -= u32::from(connection.is_joining);
        self.serving -= u64::from(connection.is_served);
        connection.reset(if for_good { Phase::Over } else { Phase::Idle });
        if by_pool {
            self.tally.connections.closed_by_pool += 1;
            self.tally.shares.lost += lost;
        } else {
            self.tally.connections.closed_by_us += 1;
            self.tally.shares.abandoned += lost;
        }
        let number = u32::try_from(index).expect("connections are counted in u32");
        match (for_good, by_pool) {
            (true, _) => {}
            (false, true) => self.retries.push_back((self.now_ns + RETRY_NS, number)),
            (false, false) => self.waiting_to_join.push_back(number),
        }
    }

    pub(super) fn fail(&mut self, index: usize, fault: &str) {
        count(&mut self.tally.connections.errors, fault);
        self.end(index, true, false);
    }

    /// Takes a device's channel away; returns how many shares were without an answer.
    pub(super) fn forget_device(&mut self, place: usize) -> u64 {
        let device = &mut self.devices[place];
        let mut lost = 0;
        while self.outstanding.take_oldest(device).is_some() {
            lost += 1;
        }
        self.channels -= u64::from(device.is_open);
        *device = Device::new();
        lost
    }

    fn carry_out(&mut self, event: &Event) {
        let count = self.connections.len();
        let some = (count as f64 * event.fraction).ceil() as usize;
        match event.kind {
            EventKind::Reconnect | EventKind::Disconnect => {
                let for_good = event.kind == EventKind::Disconnect;
                for index in 0..some {
                    if self.connections[index].socket.is_some() {
                        self.end(index, false, for_good);
                    }
                }
            }
            EventKind::Rate => {
                for index in 0..count {
                    let number = self.first_connection + u32::try_from(index).expect("counted in u32");
                    let connection = &mut self.connections[index];
                    connection.rates.boost(number, event.fraction, event.factor);
                    // The processes have no memory: drawing anew changes nothing else. The entry of before comes first
                    // and finds nothing due.
                    if connection.is_scheduled && !connection.is_blocked {
                        let gap_ns = connection.rates.draw_gap_ns(&mut self.random);
                        connection.next_arrival_ns = connection.next_arrival_ns.min(self.now_ns + gap_ns);
                    }
                }
                self.rebuild_arrivals();
            }
            EventKind::Update => {
                for index in 0..count {
                    if self.connections[index].is_served {
                        self.update_channels(index, event.fraction, event.factor);
                    }
                }
            }
            EventKind::SlowReaders => {
                let until_ns = self.now_ns + nanos(event.duration_s);
                for index in 0..some {
                    let connection = &mut self.connections[index];
                    if let (false, Some(socket)) = (connection.is_paused, connection.socket) {
                        connection.is_paused = true;
                        self.pausing.push((socket, true));
                        self.paused.push((until_ns, u32::try_from(index).expect("counted in u32")));
                    }
                }
            }
        }
    }
}
