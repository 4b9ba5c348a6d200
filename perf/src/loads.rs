//! The loads, what is read off each, and what it should come to.
//!
//! The scenarios are files of the load generator (`perf/loads`), so that each can be run by hand as well. Letters and targets
//! are those of the performance page of the design.

use std::time::Duration;

use crate::failure::Failure;
use crate::figures::Figure;

/// Which command a load belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Suite {
    /// Adit and its peer.
    Peers,
    /// Adit alone.
    Scale,
}

impl Suite {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Peers => "peers",
            Self::Scale => "scale",
        }
    }

    /// How many shares of a channel are acknowledged with one message, where a load does not say: beside the peer as many as it does by
    /// default, alone each, as Adit does.
    const fn share_batch_size(self) -> u32 {
        match self {
            Self::Peers => 10,
            Self::Scale => 1,
        }
    }
}

/// What a figure should come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    /// So many times better than the peer's in the same record.
    Times(f64),
    /// At most so much, whatever the peer does.
    AtMost(f64),
}

/// What is demanded of a load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Target {
    pub(crate) figure: Figure,
    /// None where the load is itself the aim of a smaller one.
    pub(crate) must: Option<Limit>,
    /// None where the aim is another load, a larger one.
    pub(crate) aim: Option<Limit>,
}

const fn times(figure: Figure, must: f64, aim: f64) -> Target {
    Target { figure, must: Some(Limit::Times(must)), aim: Some(Limit::Times(aim)) }
}

const fn at_most(figure: Figure, must: f64, aim: f64) -> Target {
    Target { figure, must: Some(Limit::AtMost(must)), aim: Some(Limit::AtMost(aim)) }
}

const fn must_be_at_most(figure: Figure, must: f64) -> Target {
    Target { figure, must: Some(Limit::AtMost(must)), aim: None }
}

const fn aimed_at_most(figure: Figure, aim: f64) -> Target {
    Target { figure, must: None, aim: Some(Limit::AtMost(aim)) }
}

/// What the template source makes once all have joined, each so often; it makes nothing by itself. Nothing new comes while
/// connections join: the peer may hang for good when a tip comes while it opens a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Renewal {
    pub(crate) tip_s: Option<u32>,
    pub(crate) template_s: Option<u32>,
}

impl Renewal {
    pub(crate) const NONE: Self = Self { tip_s: None, template_s: None };

    const fn tips(interval_s: u32) -> Self {
        Self { tip_s: Some(interval_s), template_s: None }
    }
}

/// One load.
#[derive(Debug)]
pub(crate) struct Load {
    /// As on the command line.
    pub(crate) name: &'static str,
    /// As on the page.
    pub(crate) title: &'static str,
    pub(crate) suite: Suite,
    /// TOML for the load generator.
    pub(crate) scenario: &'static str,
    pub(crate) renewal: Renewal,
    /// How many shares of a channel either pool acknowledges with one message.
    pub(crate) share_batch_size: u32,
    pub(crate) figures: &'static [Figure],
    pub(crate) targets: &'static [Target],
}

macro_rules! load {
    ($name:literal, $suite:ident, $title:literal) => {
        Load {
            name: $name,
            title: $title,
            suite: Suite::$suite,
            scenario: include_str!(concat!("../loads/", $name, ".toml")),
            share_batch_size: Suite::$suite.share_batch_size(),
            ..PLAIN
        }
    };
}

const PLAIN: Load = Load {
    name: "",
    title: "",
    suite: Suite::Peers,
    scenario: "",
    renewal: Renewal::NONE,
    share_batch_size: Suite::Peers.share_batch_size(),
    figures: &[],
    targets: &[],
};

use Figure::{
    AckMaxMs, AckP50Ms, AckP99Ms, BytesPerChannel, CpuMsEach, CpuMsPerJoin, CpuUsPerOpen, CpuUsPerShare,
    CpusBusy, FirstJobMaxMs, FirstJobP99Ms, FirstMs, GeneratorCpusBusy, GrowthMib, KibPerConnection, LastMs,
    LateP99Ms, NotServed, RssMaxMib, SecondShardFactor, ShareBytesPerChannel, SharesLost, SharesPerSecond,
    SharesStale,
};

const CLOSED_LOOP: &[Figure] =
    &[CpuUsPerShare, SharesPerSecond, CpusBusy, GeneratorCpusBusy, AckP50Ms, AckP99Ms, AckMaxMs];
const OPEN_LOOP: &[Figure] = &[AckP50Ms, AckP99Ms, AckMaxMs, LateP99Ms, CpuUsPerShare, SharesPerSecond];
const FAN_OUT: &[Figure] = &[FirstMs, LastMs, CpuMsEach];
const DEVICES: &[Figure] = &[
    SharesPerSecond,
    CpuUsPerShare,
    CpusBusy,
    AckP50Ms,
    AckP99Ms,
    AckMaxMs,
    LateP99Ms,
    SharesLost,
    SharesStale,
    BytesPerChannel,
    RssMaxMib,
];
const DEVICES_RENEWAL: Renewal = Renewal { template_s: Some(20), tip_s: Some(45) };
const JOINING: &[Figure] = &[CpuMsPerJoin, FirstJobP99Ms, FirstJobMaxMs, NotServed];

/// Every load, in the order in which they are run and shown.
pub(crate) const LOADS: &[Load] = &[
    Load {
        figures: CLOSED_LOOP,
        targets: &[times(CpuUsPerShare, 3.5, 4.5)],
        ..load!("a", Peers, "A. extended channels, 64 connections, a share per write, 64 in flight each")
    },
    Load {
        figures: CLOSED_LOOP,
        targets: &[times(CpuUsPerShare, 12.0, 16.0)],
        ..load!("b", Peers, "B. extended channels, 8 connections, 32 shares per write, 256 in flight each")
    },
    Load {
        figures: CLOSED_LOOP,
        targets: &[times(CpuUsPerShare, 20.0, 30.0)],
        ..load!(
            "c",
            Peers,
            "C. 16 connections of 256 standard channels, 30 shares per write, 512 in flight each"
        )
    },
    Load {
        share_batch_size: 1,
        figures: OPEN_LOOP,
        ..load!("d", Peers, "D. open loop, 5,000 shares a second over 64 connections, each acknowledged")
    },
    Load {
        share_batch_size: 1,
        figures: OPEN_LOOP,
        targets: &[at_most(AckP99Ms, 1.0, 0.3)],
        ..load!("d20", Peers, "D. open loop, 20,000 shares a second over 64 connections, each acknowledged")
    },
    Load {
        renewal: Renewal::tips(3),
        figures: FAN_OUT,
        targets: &[times(LastMs, 10.0, 20.0), times(FirstMs, 100.0, 500.0)],
        ..load!("e", Peers, "E. a new tip for 5,000 connections")
    },
    Load {
        name: "e-template",
        title: "E'. a new template for 5,000 connections",
        scenario: include_str!("../loads/e.toml"),
        renewal: Renewal { tip_s: None, template_s: Some(3) },
        figures: FAN_OUT,
        ..PLAIN
    },
    Load {
        renewal: Renewal::tips(3),
        figures: FAN_OUT,
        targets: &[times(CpuMsEach, 15.0, 30.0)],
        ..load!(
            "f",
            Peers,
            "F. a new tip for 10 connections of 1,000 standard channels that require standard jobs"
        )
    },
    Load {
        figures: JOINING,
        targets: &[times(CpuMsPerJoin, 8.0, 10.0)],
        ..load!("g", Peers, "G. 10,000 connections join, 100 at a time")
    },
    Load {
        figures: JOINING,
        targets: &[must_be_at_most(NotServed, 0.0)],
        ..load!("g10000", Peers, "G'. 10,000 connections join at once")
    },
    Load {
        figures: &[KibPerConnection, GrowthMib, RssMaxMib],
        targets: &[at_most(KibPerConnection, 6.0, 3.0)],
        ..load!(
            "h",
            Peers,
            "H. memory of 5,000 connections with a channel each, and after all came back twenty times"
        )
    },
    Load {
        figures: &[CpuUsPerOpen, BytesPerChannel],
        targets: &[at_most(CpuUsPerOpen, 4.0, 3.0), at_most(BytesPerChannel, 256.0, 128.0)],
        ..load!("i", Peers, "I. 100,000 standard channels in groups, before their first share")
    },
    Load {
        figures: &[CpuUsPerOpen, BytesPerChannel, RssMaxMib],
        targets: &[at_most(CpuUsPerOpen, 4.0, 3.0), at_most(BytesPerChannel, 256.0, 128.0)],
        ..load!("i1m", Scale, "I. 1,000,000 standard channels in groups, before their first share")
    },
    Load {
        figures: &[ShareBytesPerChannel, CpuUsPerShare],
        targets: &[at_most(ShareBytesPerChannel, 1_024.0, 600.0)],
        ..load!("i60", Scale, "I'. what 60 shares on one tip add to a channel's memory")
    },
    Load {
        renewal: DEVICES_RENEWAL,
        figures: DEVICES,
        targets: &[must_be_at_most(AckP99Ms, 50.0), must_be_at_most(SharesLost, 0.0)],
        ..load!(
            "j",
            Scale,
            "J. 2,000,000 devices at 6 shares a minute each on one core, through tips, templates and retargets"
        )
    },
    Load {
        renewal: DEVICES_RENEWAL,
        figures: DEVICES,
        targets: &[aimed_at_most(AckP99Ms, 50.0), aimed_at_most(SharesLost, 0.0)],
        ..load!(
            "j5m",
            Scale,
            "J'. 5,000,000 devices at 6 shares a minute each on one core, through tips, templates and retargets"
        )
    },
    Load {
        renewal: Renewal::tips(10),
        figures: &[NotServed, FirstMs, LastMs, CpuMsEach, CpuMsPerJoin, KibPerConnection, RssMaxMib],
        targets: &[must_be_at_most(NotServed, 0.0)],
        ..load!("k", Scale, "K. 100,000 encrypted connections in one process, a channel each")
    },
    Load {
        figures: &[SecondShardFactor, CpuUsPerShare, AckP99Ms],
        targets: &[at_most(SecondShardFactor, 1.1, 1.0)],
        ..load!(
            "l",
            Scale,
            "L. two shards of one process against two processes of one shard, each at 15,000 shares a second"
        )
    },
];

impl Load {
    /// Whether it asks what joining costs, and nothing of what comes after.
    pub(crate) fn is_about_joining(&self) -> bool {
        matches!(self.figures, [CpuMsPerJoin | CpuUsPerOpen, ..])
    }

    /// Whether it asks what a second shard costs: two shards then, each under a load generator of its own.
    pub(crate) fn is_about_second_shard(&self) -> bool {
        self.figures.contains(&SecondShardFactor)
    }

    /// The load of this name.
    pub(crate) fn find(name: &str) -> Result<&'static Self, Failure> {
        LOADS.iter().find(|load| load.name == name).ok_or_else(|| unknown(name, LOADS.iter()))
    }

    /// The loads of a suite with these names; all of it without names.
    pub(crate) fn select(suite: Suite, names: &[String]) -> Result<Vec<&'static Self>, Failure> {
        let of_suite = || LOADS.iter().filter(move |load| load.suite == suite);
        let wrong = names.iter().find(|name| !of_suite().any(|load| load.name == **name));
        match wrong {
            Some(name) => Err(unknown(name, of_suite())),
            None if names.is_empty() => Ok(of_suite().collect()),
            None => Ok(of_suite().filter(|load| names.iter().any(|name| name == load.name)).collect()),
        }
    }

    /// The longest that the scenario lets a run take.
    pub(crate) fn duration_max(&self) -> Duration {
        let scenario = self.table();
        let join = scenario
            .get("join")
            .and_then(toml::Value::as_table)
            .map_or(60.0, |join| seconds(join, "timeout_s", 60.0));
        let phases = [("warmup_s", 2.0), ("duration_s", 10.0), ("drain_s", 5.0)];
        let phases: f64 = phases.iter().map(|(key, default)| seconds(&scenario, key, *default)).sum();
        Duration::from_secs_f64(join + phases)
    }

    /// From the end of joining to the measured window.
    pub(crate) fn warmup(&self) -> Duration {
        Duration::from_secs_f64(seconds(&self.table(), "warmup_s", 2.0))
    }

    fn table(&self) -> toml::Table {
        self.scenario.parse().expect("the committed scenarios are TOML")
    }

    /// A whole number of the scenario; 1, the generator's default, if it is not set.
    pub(crate) fn number(&self, key: &str) -> u64 {
        self.table().get(key).and_then(toml::Value::as_integer).map_or(1, i64::unsigned_abs)
    }
}

fn seconds(table: &toml::Table, key: &str, default: f64) -> f64 {
    let value = table.get(key);
    let number =
        value.and_then(|value| value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64)));
    number.unwrap_or(default)
}

fn unknown(name: &str, known: impl Iterator<Item = &'static Load>) -> Failure {
    Failure::UnknownLoad { name: name.to_owned(), known: known.map(|load| load.name).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_of_a_figure_that_is_read() {
        for load in LOADS {
            let mut figures = load.targets.iter().map(|target| target.figure);
            assert!(figures.all(|figure| load.figures.contains(&figure)), "{}", load.name);
            let others = LOADS.iter().filter(|other| other.name == load.name).count();
            assert_eq!(others, 1, "{} stands once", load.name);
            assert!(
                load.suite == Suite::Peers
                    || load.targets.iter().all(|target| !matches!(target.must, Some(Limit::Times(_))))
            );
        }
    }

    #[test]
    fn scenarios_are_read() {
        for load in LOADS {
            assert!(load.number("connections") >= 8, "{}", load.name);
        }
        assert_eq!(Load::find("c").unwrap().number("channels_per_connection"), 256);
        assert_eq!(Load::find("a").unwrap().number("channels_per_connection"), 1);
        assert_eq!(Load::find("a").unwrap().duration_max(), Duration::from_secs(60 + 2 + 10 + 5));
        assert_eq!(Load::find("j").unwrap().duration_max(), Duration::from_secs(600 + 10 + 60 + 10));
    }

    #[test]
    fn some_loads_are_about_joining() {
        let joining = LOADS.iter().filter(|load| load.is_about_joining()).map(|load| load.name);
        assert_eq!(joining.collect::<Vec<_>>(), ["g", "g10000", "i", "i1m"]);
    }

    #[test]
    fn one_load_is_about_a_second_shard() {
        let two = LOADS.iter().filter(|load| load.is_about_second_shard()).map(|load| load.name);
        assert_eq!(two.collect::<Vec<_>>(), ["l"]);
    }

    #[test]
    fn loads_are_chosen_by_name() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(Load::select(Suite::Peers, &names(&["c", "a"])).unwrap().len(), 2);
        assert_eq!(Load::select(Suite::Scale, &[]).unwrap().len(), 6);
        let error = Load::select(Suite::Peers, &names(&["j"])).unwrap_err().to_string();
        assert!(error.starts_with("there is no load \"j\" here; there are a, b, c,"), "{error}");
        assert!(Load::find("z").is_err());
    }
}
