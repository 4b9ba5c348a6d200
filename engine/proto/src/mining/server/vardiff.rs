//! Targets that follow a channel's hash rate.
//!
//! Shares arrive as a Poisson process whose rate should be [`VardiffConfig::shares_per_minute`]. Two cumulative sums of
//! log-likelihood ratios (CUSUM) watch it: one against a rate `RISE` times as high, one against `FALL` times as high.
//! Such a sum stays near zero while the rate is right and climbs steadily once it is not, which finds a change in the least
//! time that a given number of false alarms allows. When one passes its threshold, the shares since it last stood at zero,
//! which is where the change began, tell the new rate.
//!
//! Counting shares in windows of 60 s instead, as others do, reacts to a tenfold rise only at the window's end and needs
//! three windows to see a tenfold fall. Here a tenfold change at 6 shares a minute is followed, to within a factor of four and
//! with the wait for the job that makes the new target bind ([`ServerConfig::job_interval`], 30 s), in
//! - 27 s in the median after a rise, and within 60 s in 99.7 % of cases;
//! - 90 s in the median after a fall, and within 180 s in 99.8 % of cases, the worst of 2,000 in 223 s.
//!
//! The price is 3.5 needless retargets an hour on a steady channel, each of a factor of two or so and soon mended. Arrivals are
//! random, so no rule follows always: with thresholds of 7.5 and 4.8 one fall in a thousand comes late, for 4.8 retargets an hour;
//! with 8.5 and 5.5 four do, for 2.5. The constants were chosen by simulations of 2,000 channels each; the tests repeat them.
//!
//! Shares count by the difficulty that was assigned to them over that of the present target. What comes before the present
//! target is in force says little in that unit (one share of the old target may weigh ten) and is left out.
//!
//! A channel that falls silent has its target eased step by step, each step waiting twice as long as the one before: a
//! device that was only away must not come back to a target that floods the pool.
//!
//! # Announcements
//! UpdateChannel says what a client expects, its shares show what it has. A client that could ease its target at will would
//! flood the pool with shares that cost it nothing, each time until the rising sum sees it. So once a channel has sent a share, an
//! announcement eases its target by a factor of `ANNOUNCED_STEP` at once and no further until the shares agree; the rest follows
//! when the falling sum passes its threshold. A proxy whose miners left thus has the target it asked for after some two
//! minutes, and a client that lies gets eight times the shares that its target gave until the rising sum sees it, in seconds.
//! Announcements of more are believed at once, and change neither sums nor time where they change the target by little: repeating
//! them hides nothing. Where targets do not follow the shares, announcements are all there is, and each is believed.
//!
//! [`ServerConfig::job_interval`]: super::config::ServerConfig::job_interval

use core::time::Duration;

use adit_hasher::Target;

use super::config::VardiffConfig;
use crate::time::Instant;

/// Rate against which the rising sum tests, in units of the wanted one.
const RISE: f32 = 2.5;
const LN_RISE: f32 = 0.916_290_76;
/// Rate against which the falling sum tests.
const FALL: f32 = 0.3;
const LN_FALL: f32 = -1.203_972_8;
/// Higher thresholds miss the time in which a tenfold change must be followed, lower ones bring false alarms.
const RISE_THRESHOLD: f32 = 8.5;
/// Lower than the other, since a fall shows slowly, and its false alarm only costs a few more shares.
const FALL_THRESHOLD: f32 = 5.2;
/// What an estimate is multiplied by: the shares since a sum left zero hold some of before the change, which pull the
/// estimate back. With 0.75 for falls one in a hundred needs another round and more than 180 s; less than 0.4 gains nothing.
const RISE_CORRECTION: f64 = 1.25;
const FALL_CORRECTION: f64 = 0.4;
/// How far one step may ease the target of a channel that sent nothing.
const SILENT_STEP: f64 = 1.0 / 8.0;
/// How far an announcement may ease the target of a channel that has sent shares, before they agree.
const ANNOUNCED_STEP: f64 = 1.0 / 8.0;
/// Shares that the wanted rate brings in the time after which a target without an alarm counts as agreed on.
const AGREED_SHARES: f64 = 8.0;
/// Doublings of the wait between such steps, at most: hours at 6 shares a minute.
const SILENT_STEPS_MAX: u8 = 6;
/// A change of target that is smaller is not worth a message.
const CHANGE_MIN: f64 = 0.1;
/// Looks at a channel without shares in the time in which one is expected: that none came is evidence too. One look, or ten,
/// see a fall no better than two.
const CHECKS_PER_SHARE: u32 = 2;
/// Between two looks at a channel without shares.
const CHECK_MIN: Duration = Duration::from_secs(1);
const CHECK_MAX: Duration = Duration::from_secs(60);

/// A sum and the shares and time since it last stood at zero.
#[derive(Clone, Copy, Debug, Default)]
struct Cusum {
    sum: f32,
    shares: f32,
    seconds: f32,
}

impl Cusum {
    fn add(&mut self, gain: f32, shares: f32, seconds: f32) {
        self.sum += gain;
        if self.sum <= 0.0 {
            *self = Self::default();
        } else {
            self.shares += shares;
            self.seconds += seconds;
        }
    }
}

/// What an announcement may do to a channel's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// No share came yet: announcements are all that is known.
    Unknown,
    /// The shares agree with the target.
    Agreed,
    /// An announcement eased the target, and the shares have not agreed yet.
    Eased,
}

/// A difficulty in two bytes, rounded down by less than 1 %; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rough(u16);

impl Rough {
    const fn new(difficulty: f64) -> Self {
        Self(((difficulty as f32).to_bits() >> 16) as u16)
    }

    fn value(self) -> Option<f64> {
        (self.0 != 0).then(|| f64::from(f32::from_bits(u32::from(self.0) << 16)))
    }
}

/// The state of one channel; 40 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Vardiff {
    counted_to: Instant,
    pending_difficulty: f32,
    rise: Cusum,
    fall: Cusum,
    silent_steps: u8,
    standing: Standing,
    /// The difficulty that an announcement asked for and did not get, easier than the target's.
    announced: Rough,
}

impl Vardiff {
    /// A channel that starts at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            counted_to: now,
            pending_difficulty: 0.0,
            rise: Cusum::default(),
            fall: Cusum::default(),
            silent_steps: 0,
            standing: Standing::Unknown,
            announced: Rough::default(),
        }
    }

    /// The client announced a hash rate that stands for the target `announced`: the target that it gets in place of `target`,
    /// the one last sent.
    pub fn announce(
        &mut self,
        config: &VardiffConfig,
        target: &Target,
        announced: Target,
        now: Instant,
    ) -> Target {
        self.announced = Rough::default();
        let believed = !config.adjust || self.standing == Standing::Unknown;
        if believed || announced <= *target {
            if !is_close(target, &announced) {
                *self = Self { standing: self.standing, ..Self::new(now) };
            }
            return announced;
        }
        let granted = match self.standing {
            Standing::Eased => *target,
            Standing::Unknown | Standing::Agreed => {
                announced.min(Target::from_difficulty(target.difficulty() * ANNOUNCED_STEP))
            }
        };
        if granted != *target {
            *self = Self { standing: Standing::Eased, ..Self::new(now) };
        }
        if granted != announced {
            self.announced = Rough::new(announced.difficulty());
        }
        granted
    }

    /// An accepted share to which `difficulty` was assigned.
    pub fn record(&mut self, difficulty: f64) {
        self.pending_difficulty += difficulty as f32;
        if self.standing == Standing::Unknown {
            self.standing = Standing::Agreed;
        }
    }

    /// When to [`poll`](Self::poll) next although no share came.
    pub fn next_check(&self, config: &VardiffConfig) -> Instant {
        let share_gap = Duration::try_from_secs_f64(60.0 / config.shares_per_minute).unwrap_or(CHECK_MAX);
        self.counted_to + (share_gap / CHECKS_PER_SHARE).clamp(CHECK_MIN, CHECK_MAX)
    }

    /// The target that the channel should have, if another than `target`.
    ///
    /// `target` is the one last sent; `in_force_since` says when a job made it binding, `None` if none has yet.
    pub fn poll(
        &mut self,
        config: &VardiffConfig,
        target: &Target,
        in_force_since: Option<Instant>,
        now: Instant,
    ) -> Option<Target> {
        let Some(in_force_since) = in_force_since else {
            self.pending_difficulty = 0.0;
            self.counted_to = now;
            return None;
        };
        if self.counted_to < in_force_since {
            self.pending_difficulty = 0.0;
            self.counted_to = in_force_since;
        }
        if !config.adjust {
            return None;
        }
        let difficulty = target.difficulty();
        let shares = core::mem::take(&mut self.pending_difficulty) / difficulty as f32;
        let seconds = now.since(self.counted_to).as_secs_f32();
        self.counted_to = self.counted_to.max(now);
        self.count(config, shares, seconds);

        let Some(observed_per_minute) = self.alarm() else {
            let expected = now.since(in_force_since).as_secs_f64() * config.shares_per_minute / 60.0;
            if self.standing == Standing::Eased && expected >= AGREED_SHARES {
                self.standing = Standing::Agreed;
            }
            return None;
        };
        let is_silent = self.is_silent();
        let mut wanted = difficulty * (observed_per_minute / config.shares_per_minute).max(SILENT_STEP);
        let mut standing = match self.standing {
            Standing::Unknown => Standing::Unknown,
            Standing::Agreed | Standing::Eased => Standing::Agreed,
        };
        if let Some(announced) =
            self.announced.value().filter(|announced| *announced < wanted && wanted < difficulty)
        {
            // The shares have fallen as the client said they would. Silence says nothing of how far.
            wanted = if is_silent { announced } else { announced.max(wanted * ANNOUNCED_STEP) };
            standing = Standing::Eased;
        }
        let silent_steps = if is_silent { (self.silent_steps + 1).min(SILENT_STEPS_MAX) } else { 0 };
        *self = Self { silent_steps, standing, ..Self::new(self.counted_to) };
        let new = Target::from_difficulty(wanted).min(easiest_target(config));
        (!is_close(target, &new)).then_some(new)
    }

    fn count(&mut self, config: &VardiffConfig, shares: f32, seconds: f32) {
        let expected = (config.shares_per_minute / 60.0) as f32 * seconds;
        if shares > 0.0 {
            self.silent_steps = 0;
        }
        self.rise.add(shares * LN_RISE - expected * (RISE - 1.0), shares, seconds);
        self.fall.add(shares * LN_FALL + expected * (1.0 - FALL), shares, seconds);
    }

    /// Whether no share came since the falling sum left zero.
    fn is_silent(&self) -> bool {
        self.fall.sum > 0.0 && self.fall.shares == 0.0
    }

    /// The shares a minute that an alarm found, if there is one.
    fn alarm(&self) -> Option<f64> {
        if self.rise.sum > RISE_THRESHOLD {
            // A burst within one tick took no measurable time.
            let per_second = f64::from(self.rise.shares) / f64::from(self.rise.seconds.max(1e-3));
            return Some(per_second * 60.0 * RISE_CORRECTION);
        }
        let patience = f32::from(1_u8 << self.silent_steps);
        if self.fall.sum > FALL_THRESHOLD * if self.is_silent() { patience } else { 1.0 } {
            // Half a share stands for none: no estimate is zero.
            let per_second = f64::from(self.fall.shares.max(0.5)) / f64::from(self.fall.seconds);
            return Some(per_second * 60.0 * FALL_CORRECTION);
        }
        None
    }
}

/// Whether two targets are so near that the difference is not worth a message, or a new count.
pub fn is_close(target: &Target, new: &Target) -> bool {
    (new.difficulty() / target.difficulty() - 1.0).abs() <= CHANGE_MIN
}

/// Whether a target is one that the server makes no easier, however few shares come.
pub(super) fn is_easiest(config: &VardiffConfig, target: &Target) -> bool {
    *target >= easiest_target(config)
}

/// The easiest target that the server sets of its own accord.
fn easiest_target(config: &VardiffConfig) -> Target {
    Target::from_difficulty(config.difficulty_min)
}

/// The target for a hash rate that a client announces, in hashes per second; zero stands for the configured default. Never
/// easier than `max_target`, the easiest that the client accepts, or than [`VardiffConfig::difficulty_min`]: a harder target than
/// the client's is always allowed (specification 5.3.2 and 5.3.7 ask for `max_target` to be respected as a maximum).
pub fn announced_target(config: &VardiffConfig, nominal_hash_rate: f32, max_target: &Target) -> Target {
    let hash_rate =
        if nominal_hash_rate > 0.0 { f64::from(nominal_hash_rate) } else { config.hash_rate_default };
    Target::from_hash_rate(hash_rate, config.shares_per_minute).min(*max_target).min(easiest_target(config))
}

#[cfg(test)]
mod tests {
    use std::println;
    use std::vec::Vec;

    use super::*;

    const CONFIG: VardiffConfig =
        VardiffConfig { shares_per_minute: 6.0, hash_rate_default: 1e12, difficulty_min: 0.0, adjust: true };

    /// Exponential gaps from a small generator: enough for arrival times.
    struct Arrivals(u64);

    impl Arrivals {
        fn gap_s(&mut self, per_second: f64) -> f64 {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let unit = ((self.0 >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            -unit.ln() / per_second
        }
    }

    /// A channel whose targets bind at the next multiple of 30 s, as they do with the server's job interval.
    struct Channel {
        vardiff: Vardiff,
        binding: Target,
        in_force_since: Instant,
        sent: Target,
        retargets: u32,
        now_s: f64,
        arrivals: Arrivals,
    }

    impl Channel {
        fn new(hash_rate: f64, seed: u64) -> Self {
            let target = announced_target(&CONFIG, hash_rate as f32, &Target::MAX);
            Self {
                vardiff: Vardiff::new(Instant::ZERO),
                binding: target,
                in_force_since: Instant::ZERO,
                sent: target,
                retargets: 0,
                now_s: 0.0,
                arrivals: Arrivals(seed),
            }
        }

        fn now(&self) -> Instant {
            Instant::ZERO + Duration::from_secs_f64(self.now_s)
        }

        fn poll(&mut self) {
            let since = (self.sent == self.binding).then_some(self.in_force_since);
            if let Some(target) = self.vardiff.poll(&CONFIG, &self.sent, since, self.now()) {
                self.sent = target;
                self.retargets += 1;
            }
        }

        fn announce(&mut self, hash_rate: f64) {
            let announced = announced_target(&CONFIG, hash_rate as f32, &Target::MAX);
            let granted = self.vardiff.announce(&CONFIG, &self.sent, announced, self.now());
            if is_close(&self.sent, &granted) && self.binding == self.sent {
                self.binding = granted;
            }
            self.sent = granted;
        }

        /// Runs until `done` or for `limit_s`; returns the seconds it took.
        fn run(&mut self, hash_rate: f64, limit_s: f64, done: impl Fn(&Self) -> bool) -> f64 {
            let start = self.now_s;
            let (mut next_check, mut next_job) = (self.now_s, (self.now_s / 30.0).floor() * 30.0 + 30.0);
            let mut next_share = self.now_s + self.gap(hash_rate);
            while self.now_s - start < limit_s && !done(self) {
                self.now_s = next_check.min(next_job).min(next_share);
                if self.now_s == next_share {
                    self.vardiff.record(self.binding.difficulty());
                    self.poll();
                    next_share = self.now_s + self.gap(hash_rate);
                } else if self.now_s == next_job {
                    next_job += 30.0;
                    if self.binding != self.sent {
                        self.binding = self.sent;
                        self.in_force_since = self.now();
                        // The next share is found at the new target; arrivals have no memory.
                        next_share = self.now_s + self.gap(hash_rate);
                    }
                } else {
                    self.poll();
                    next_check = self.now_s + 5.0;
                }
            }
            self.now_s - start
        }

        fn gap(&mut self, hash_rate: f64) -> f64 {
            self.arrivals.gap_s(hash_rate / self.binding.hash_rate(60.0))
        }

        /// Shares a minute at the binding target.
        fn rate(&self, hash_rate: f64) -> f64 {
            hash_rate / self.binding.hash_rate(60.0) * 60.0
        }
    }

    /// In order, the seconds in which 1,000 channels, settled at 1 TH/s, have followed a jump to `factor` times that: until the
    /// target that binds fits within a factor of four.
    fn times(factor: f64) -> Vec<f64> {
        let mut times: Vec<f64> = (0..1_000)
            .map(|seed| {
                let mut channel = Channel::new(1e12, seed * 77 + 1);
                channel.run(1e12, 600.0 + seed as f64 % 30.0, |_| false);
                let jump = 1e12 * factor;
                channel.run(jump, 1_800.0, |channel| (1.5..=24.0).contains(&channel.rate(jump)))
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!("times {factor}: median {} s, 99 % {} s, worst {} s", times[500], times[990], times[999]);
        times
    }

    fn followed_within(times: &[f64], seconds: f64) -> usize {
        times.iter().filter(|time| **time <= seconds).count()
    }

    #[test]
    fn a_tenfold_rise_is_followed_within_a_minute() {
        let times = times(10.0);
        assert!(times[500] <= 30.0, "median {}", times[500]);
        assert!(followed_within(&times, 60.0) >= 990, "{} of 1,000", followed_within(&times, 60.0));
    }

    #[test]
    fn a_tenfold_fall_is_followed_within_three_minutes() {
        let times = times(0.1);
        assert!(times[500] <= 100.0, "median {}", times[500]);
        assert!(followed_within(&times, 180.0) >= 993, "{} of 1,000", followed_within(&times, 180.0));
        assert!(times[999] < 420.0, "worst {}", times[999]);
    }

    #[test]
    fn a_steady_channel_is_left_alone() {
        let hours = 24.0 * 20.0;
        let retargets: u32 = (0..20)
            .map(|seed| {
                let mut channel = Channel::new(1e12, seed + 5);
                channel.run(1e12, 24.0 * 3600.0, |_| false);
                assert!((1.5..=24.0).contains(&channel.rate(1e12)), "{}", channel.rate(1e12));
                channel.retargets
            })
            .sum();
        let per_hour = f64::from(retargets) / hours;
        println!("{per_hour} needless retargets an hour");
        assert!(per_hour < 4.5, "{per_hour} retargets an hour");
    }

    #[test]
    fn a_wrong_announcement_is_mended() {
        for (announced, real) in [(1e15, 1e12), (1e9, 1e12)] {
            let mut channel = Channel::new(announced, 42);
            let took = channel.run(real, 7200.0, |channel| (2.0..=18.0).contains(&channel.rate(real)));
            assert!(took < 3600.0, "{announced} for {real}: {took} s");
        }
    }

    #[test]
    fn silence_eases_the_target_ever_more_slowly() {
        let mut channel = Channel::new(1e12, 3);
        let start = channel.sent.difficulty();
        channel.run(1e-9, 600.0, |_| false);
        let after_ten_minutes = channel.sent.difficulty();
        assert!(after_ten_minutes < start / 7.0, "{start} {after_ten_minutes}");
        channel.run(1e-9, 3000.0, |_| false);
        assert!(channel.sent.difficulty() > start / 1e6, "{}", channel.sent.difficulty());
    }

    #[test]
    fn a_rate_that_no_target_can_give_changes_nothing() {
        let config = VardiffConfig { shares_per_minute: 1e9, ..CONFIG };
        let target = announced_target(&config, 1e6, &Target::MAX);
        let mut vardiff = Vardiff::new(Instant::ZERO);
        for second in 1..1_000 {
            vardiff.record(target.difficulty());
            let now = Instant::ZERO + Duration::from_secs(second);
            assert_eq!(vardiff.poll(&config, &target, Some(Instant::ZERO), now), None);
        }
    }

    #[test]
    fn announcements_are_held_to_the_clients_bound() {
        let bound = Target::from_difficulty(1e6);
        assert_eq!(announced_target(&CONFIG, 1.0, &bound), bound);
        let own = announced_target(&CONFIG, 1e15, &bound);
        assert!(own < bound);
        assert_eq!(announced_target(&CONFIG, 0.0, &Target::MAX), Target::from_hash_rate(1e12, 6.0));
    }

    #[test]
    fn no_target_is_easier_than_the_smallest_difficulty() {
        let config = VardiffConfig { difficulty_min: 0.001, ..CONFIG };
        let easiest = Target::from_difficulty(0.001);
        for hash_rate in [f32::MIN_POSITIVE, 1e-3, 1.0, 4e5] {
            assert_eq!(announced_target(&config, hash_rate, &Target::MAX), easiest, "{hash_rate} H/s");
        }
        assert!(announced_target(&config, 1e6, &Target::MAX) < easiest);
        let bound = Target::from_difficulty(1e6);
        assert_eq!(announced_target(&config, 1.0, &bound), bound, "the client's own bound is harder");
        // A channel that falls silent is not eased below it either.
        let (mut target, mut vardiff) = (Target::from_difficulty(0.02), Vardiff::new(Instant::ZERO));
        for second in 1..100_000 {
            let now = Instant::ZERO + Duration::from_secs(second);
            target = vardiff.poll(&config, &target, Some(Instant::ZERO), now).unwrap_or(target);
            assert!(target <= easiest);
        }
        assert_eq!(target, easiest);
    }

    #[test]
    fn repeated_announcements_flood_nothing() {
        // A client that shows its rate, and then announces next to none every second, in one way or another.
        for lie in [
            |_| 1e-6,
            |second: u32| 1e-6 * f64::from(1 + second % 2),
            |second: u32| [1e-6, 1e13][(second / 60 % 2) as usize],
        ] {
            let mut channel = Channel::new(1e12, 17);
            channel.run(1e12, 600.0, |_| false);
            let mut shares = 0.0;
            let mut most: f64 = 0.0;
            for second in 0..3_600 {
                channel.announce(lie(second));
                channel.run(1e12, 1.0, |_| false);
                shares += channel.rate(1e12) / 60.0;
                most = most.max(channel.rate(1e12));
            }
            println!("{shares} shares in an hour, at most {most} a minute");
            assert!(shares < 360.0 * 12.0, "{shares} shares in an hour");
            assert!(most < 6.0 * 100.0, "{most} shares a minute");
        }
    }

    #[test]
    fn a_proxy_whose_miners_left_is_believed_in_time() {
        for fall in [1.0 / 5.0, 1e-2, 1e-4] {
            let mut times: Vec<f64> = (0..300)
                .map(|seed| {
                    let mut channel = Channel::new(1e12, seed * 31 + 3);
                    channel.run(1e12, 600.0 + seed as f64 % 30.0, |_| false);
                    channel.announce(1e12 * fall);
                    let fits = |channel: &Channel| (1.5..=24.0).contains(&channel.rate(1e12 * fall));
                    channel.run(1e12 * fall, 3_600.0, fits)
                })
                .collect();
            times.sort_by(f64::total_cmp);
            println!("{fall}: median {} s, worst {} s", times[150], times[299]);
            assert!(times[150] <= 150.0, "{fall}: median {} s", times[150]);
            assert!(times[296] <= 300.0, "{fall}: 99 % {} s", times[296]);
        }
    }

    #[test]
    fn before_the_first_share_announcements_are_believed() {
        let mut vardiff = Vardiff::new(Instant::ZERO);
        let target = announced_target(&CONFIG, 1e15, &Target::MAX);
        let easier = announced_target(&CONFIG, 1e6, &Target::MAX);
        assert_eq!(vardiff.announce(&CONFIG, &target, easier, Instant::ZERO), easier);
        vardiff.record(1.0);
        let held = vardiff.announce(&CONFIG, &target, easier, Instant::ZERO);
        assert_eq!(held, Target::from_difficulty(target.difficulty() / 8.0));
        assert_eq!(vardiff.announce(&CONFIG, &held, easier, Instant::ZERO), held, "once only");
        assert_eq!(vardiff.announce(&CONFIG, &held, target, Instant::ZERO), target, "more is believed");
        let fixed = VardiffConfig { adjust: false, ..CONFIG };
        assert_eq!(vardiff.announce(&fixed, &target, easier, Instant::ZERO), easier);
    }

    #[test]
    fn difficulties_keep_their_size_in_two_bytes() {
        assert_eq!(Rough::default().value(), None);
        for difficulty in [1e-30, 0.001, 1.0, 2_328.3, 1e12, 1e30] {
            let rough = Rough::new(difficulty).value().expect("not none");
            assert!(rough <= difficulty * 1.000_001 && rough > difficulty * 0.99, "{difficulty} {rough}");
        }
    }

    #[test]
    fn state_is_small() {
        assert!(size_of::<Vardiff>() <= 40);
    }
}
