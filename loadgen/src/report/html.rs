//! A report as one page: figures and plots, nothing to fetch.
//!
//! Plots are SVG inside the page. Texts from outside (error codes, names of processes) are escaped.

use std::fmt::Write;

use super::text::{Bytes, Short, short_key};
use super::{Latencies, Report, Spread};

/// Points of one curve: of longer runs every n-th second is drawn.
const POINTS_MAX: usize = 1_200;
/// Curves and bars are told apart by so many colours.
const COLOURS: [&str; 6] = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#555555"];
/// A plot's size, and the room for its labels.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 80.0;
const BOTTOM: f64 = 36.0;
const TOP: f64 = 24.0;
/// Threads and tips that are drawn.
const BARS_MAX: usize = 24;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#222}\
    h1{font-size:1.5em;overflow-wrap:anywhere}h2{font-size:1.15em;margin-top:2em}pre{background:#f5f5f5;padding:1em;overflow:auto}\
    svg{width:100%;height:auto}text{font:12px system-ui,sans-serif;fill:#444}.grid{stroke:#ddd}\
    .good{color:#186a3b}.bad{color:#b00020}";

/// A line to draw: a name and points.
struct Curve<'n> {
    name: &'n str,
    points: Vec<(f64, f64)>,
}

/// An axis: what its ends are, whether it is logarithmic, and how a value is written.
struct Axis {
    min: f64,
    max: f64,
    logarithmic: bool,
    label: fn(f64) -> String,
}

impl Axis {
    /// Where a value lies, from 0 to 1.
    fn at(&self, value: f64) -> f64 {
        let (min, max, value) = if self.logarithmic {
            (self.min.ln(), self.max.ln(), value.max(self.min).ln())
        } else {
            (self.min, self.max, value)
        };
        ((value - min) / (max - min).max(1e-12)).clamp(0.0, 1.0)
    }

    /// Round values for its labels.
    fn marks(&self) -> Vec<f64> {
        if self.logarithmic {
            let first = self.min.log10().ceil() as i32;
            return (first..=self.max.log10().floor() as i32).map(|power| 10f64.powi(power)).collect();
        }
        let span = (self.max - self.min).max(1e-12);
        let power = 10f64.powf((span / 5.0).log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| span / step <= 6.0);
        let step = step.unwrap_or(span);
        (0..=10)
            .map(|n| (self.min / step).ceil() * step + f64::from(n) * step)
            .filter(|mark| *mark <= self.max)
            .collect()
    }
}

fn seconds(value: f64) -> String {
    format!("{value:.0} s")
}

fn plain(value: f64) -> String {
    if value >= 1e6 {
        format!("{:.1}M", value / 1e6)
    } else if value >= 1e4 {
        format!("{:.0}k", value / 1e3)
    } else {
        format!("{value:.0}")
    }
}

fn nanoseconds(value: f64) -> String {
    Short(value as u64).to_string()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A plot with lines.
fn plot(title: &str, x: &Axis, y: &Axis, curves: &[Curve<'_>]) -> String {
    let place = |at: (f64, f64)| {
        let left = LEFT + x.at(at.0) * (WIDTH - LEFT - 10.0);
        (left, HEIGHT - BOTTOM - y.at(at.1) * (HEIGHT - BOTTOM - TOP))
    };
    let mut svg = format!("<h2>{}</h2><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">", escape(title));
    // Writing into a String cannot fail.
    for mark in y.marks() {
        let (_, top) = place((x.min, mark));
        let right = WIDTH - 10.0;
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{top:.1}\" y2=\"{top:.1}\"/>"
        );
        let (left, top) = (LEFT - 6.0, top + 4.0);
        let _ =
            write!(svg, "<text x=\"{left}\" y=\"{top:.1}\" text-anchor=\"end\">{}</text>", (y.label)(mark));
    }
    for mark in x.marks() {
        let (left, _) = place((mark, y.min));
        let top = HEIGHT - BOTTOM + 16.0;
        let _ = write!(
            svg,
            "<text x=\"{left:.1}\" y=\"{top}\" text-anchor=\"middle\">{}</text>",
            (x.label)(mark)
        );
    }
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let points: Vec<String> = curve
            .points
            .iter()
            .map(|&point| {
                let (left, top) = place(point);
                format!("{left:.1},{top:.1}")
            })
            .collect();
        let points = points.join(" ");
        let _ = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{points}\"/>"
        );
    }
    for (index, (curve, colour)) in curves.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let left = LEFT + 10.0 + index as f64 * 130.0;
        let _ = write!(svg, "<rect x=\"{left}\" y=\"4\" width=\"12\" height=\"12\" fill=\"{colour}\"/>");
        let _ = write!(svg, "<text x=\"{}\" y=\"14\">{}</text>", left + 16.0, escape(curve.name));
    }
    svg.push_str("</svg>");
    svg
}

/// Bars with names.
fn bars(title: &str, rows: &[(String, f64)], label: fn(f64) -> String) -> String {
    let max = rows.iter().map(|(_, value)| *value).fold(0.0, f64::max).max(1e-9);
    let height = 22.0 * rows.len() as f64 + 6.0;
    let mut svg = format!("<h2>{}</h2><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">", escape(title));
    for (index, (name, value)) in rows.iter().enumerate() {
        let top = 22.0 * index as f64;
        let width = (value / max * (WIDTH - 380.0)).max(1.0);
        let _ =
            write!(svg, "<text x=\"200\" y=\"{}\" text-anchor=\"end\">{}</text>", top + 15.0, escape(name));
        let _ = write!(
            svg,
            "<rect x=\"208\" y=\"{}\" width=\"{width:.1}\" height=\"16\" fill=\"{}\"/>",
            top + 3.0,
            COLOURS[0]
        );
        let _ = write!(svg, "<text x=\"{:.1}\" y=\"{}\">{}</text>", 214.0 + width, top + 15.0, label(*value));
    }
    svg.push_str("</svg>");
    svg
}

/// Quantiles against their rarity: 0.9, 0.99, 0.999 lie equally far apart.
fn percentile_curve(latencies: &Latencies) -> Vec<(f64, f64)> {
    let count = latencies.count() as f64;
    let mut seen = 0.0;
    let mut points = Vec::new();
    for (value, times) in latencies.buckets() {
        seen += times as f64;
        points.push((1.0 / (1.0 - seen / count).max(0.5 / count), value as f64));
    }
    thin(points)
}

fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(POINTS_MAX).max(1);
    points.into_iter().step_by(step).collect()
}

fn rarity(value: f64) -> String {
    let nines = value.log10().round().max(0.0) as usize;
    if nines == 0 {
        "0 %".to_owned()
    } else {
        format!("{:.*} %", nines.saturating_sub(2), 100.0 - 100.0 / value)
    }
}

impl Report {
    fn over_time(&self) -> String {
        let rows = &self.tally.seconds;
        let last_s = rows.last().map_or(1, |second| second.at_s.max(1)) as f64;
        let x = Axis { min: 0.0, max: last_s, logarithmic: false, label: seconds };
        let of = |name, value: fn(&super::Second) -> f64| Curve {
            name,
            points: thin(rows.iter().map(|second| (second.at_s as f64, value(second))).collect()),
        };
        let most = |curves: &[Curve<'_>]| {
            curves.iter().flat_map(|curve| &curve.points).map(|point| point.1).fold(1.0, f64::max) * 1.05
        };
        let mut page = String::new();
        if self.tally.shares.accepted > 0 {
            let mut latency = [
                of("p50", |second| second.latency.quantile_ns(0.5) as f64),
                of("p99", |second| second.latency.quantile_ns(0.99) as f64),
                of("max", |second| second.latency.max_ns() as f64),
            ];
            latency.iter_mut().for_each(|curve| curve.points.retain(|point| point.1 > 0.0));
            let y = Axis { min: 1e4, max: most(&latency).max(1e6), logarithmic: true, label: nanoseconds };
            page += &plot("Latency over time", &x, &y, &latency);
            let rates = [
                of("submitted", |second| second.submitted as f64),
                of("rejected", |second| second.rejected as f64),
                of("accepted", |second| second.accepted as f64),
                of("waiting", |second| second.outstanding as f64),
            ];
            let y = Axis { min: 0.0, max: most(&rates), logarithmic: false, label: plain };
            page += &plot("Shares per second, and waiting", &x, &y, &rates);
        }
        let counts = [
            of("connections", |second| second.connections as f64),
            of("channels", |second| second.channels as f64),
        ];
        let y = Axis { min: 0.0, max: most(&counts), logarithmic: false, label: plain };
        page + &plot("Connections with work, and channels", &x, &y, &counts)
    }

    fn percentiles(&self) -> String {
        let join = &self.tally.join;
        let mut page = String::new();
        for (title, curves) in [
            (
                "Latency by percentile, in the measured window",
                vec![("latency", &self.tally.measured.latency), ("of it ours", &self.tally.measured.late)],
            ),
            (
                "Joining by percentile, from the connect",
                vec![
                    ("handshake", &join.handshake),
                    ("set up", &join.setup),
                    ("open", &join.open),
                    ("first job", &join.first_job),
                ],
            ),
        ] {
            let curves: Vec<Curve<'_>> = curves
                .into_iter()
                .filter(|(_, latencies)| latencies.count() > 0)
                .map(|(name, latencies)| Curve { name, points: percentile_curve(latencies) })
                .collect();
            if curves.is_empty() {
                continue;
            }
            let points = || curves.iter().flat_map(|curve| &curve.points);
            let rarest = points().map(|point| point.0).fold(10.0, f64::max);
            let longest = points().map(|point| point.1).fold(1e6, f64::max);
            let x = Axis { min: 1.0, max: rarest, logarithmic: true, label: rarity };
            let y = Axis { min: 1e4, max: longest * 1.1, logarithmic: true, label: nanoseconds };
            page += &plot(title, &x, &y, &curves);
        }
        page
    }

    fn shards(&self) -> String {
        let measured_ns = self.phases.measured_ns.max(1) as f64;
        let mut page = String::new();
        for watched in &self.watched {
            let rows: Vec<(String, f64)> = watched
                .threads
                .iter()
                .take(BARS_MAX)
                .map(|thread| (thread.name.clone(), 100.0 * thread.cpu_ns as f64 / measured_ns))
                .collect();
            let title = format!("Load of the threads of {} ({}), measured", watched.name, watched.pid);
            page += &bars(&title, &rows, |value| format!("{value:.1} %"));
            let cpu = watched.seconds.windows(2).enumerate().map(|(second, pair)| {
                (second as f64 + 1.0, 100.0 * pair[1].cpu_ns.saturating_sub(pair[0].cpu_ns) as f64 / 1e9)
            });
            let cpu: Vec<(f64, f64)> = thin(cpu.collect());
            let last_s = cpu.last().map_or(1.0, |point| point.0);
            let most = cpu.iter().map(|point| point.1).fold(100.0, f64::max) * 1.05;
            let x = Axis { min: 0.0, max: last_s, logarithmic: false, label: seconds };
            let y = Axis { min: 0.0, max: most, logarithmic: false, label: |value| format!("{value:.0} %") };
            let title =
                format!("CPU of {} over time; memory at most {}", watched.name, Bytes(watched.rss_bytes_max));
            page += &plot(&title, &x, &y, &[Curve { name: "CPU", points: cpu }]);
        }
        page
    }

    fn spreads(title: &str, spreads: &[Spread]) -> String {
        if spreads.is_empty() {
            return String::new();
        }
        let rows: Vec<(String, f64)> = spreads
            .iter()
            .rev()
            .take(BARS_MAX)
            .map(|spread| {
                let name = format!("{}, {} conn.", short_key(&spread.key), spread.connections);
                (name, (spread.last_unix_ns - spread.first_unix_ns) as f64)
            })
            .collect();
        bars(title, &rows, nanoseconds)
    }

    /// The report as one page.
    #[must_use]
    pub fn html(&self) -> String {
        let (class, word) = if self.verdict.ok { ("good", "good") } else { ("bad", "not good") };
        let scenario = toml::to_string(&self.scenario).unwrap_or_default();
        let mut page = format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Load of {pool}</title><style>{STYLE}\
             </style></head><body><h1>Load of {pool}</h1><p class=\"{class}\">The run was {word}.</p><pre>{text}</pre>",
            pool = escape(&self.pool),
            text = escape(&self.to_string()),
        );
        page += &self.over_time();
        page += &self.percentiles();
        page += &self.shards();
        page += &Self::spreads("New tips: from the first connection to the last", &self.tally.tips);
        page += &Self::spreads("New templates: from the first connection to the last", &self.tally.templates);
        let _ = write!(page, "<h2>Scenario</h2><pre>{}</pre></body></html>", escape(&scenario));
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_within() {
        let axis = |min, max, logarithmic| Axis { min, max, logarithmic, label: plain };
        assert_eq!(axis(0.0, 23.0, false).marks(), [0.0, 5.0, 10.0, 15.0, 20.0]);
        assert_eq!(axis(1e4, 3e6, true).marks(), [1e4, 1e5, 1e6]);
        assert_eq!((axis(0.0, 10.0, false).at(5.0), axis(1.0, 100.0, true).at(10.0)), (0.5, 0.5));
        assert_eq!([1.0, 10.0, 100.0, 1_000.0].map(rarity), ["0 %", "90 %", "99 %", "99.9 %"]);
    }

    #[test]
    fn texts_from_outside_are_no_markup() {
        assert_eq!(escape("<script>\"&\""), "&lt;script&gt;&quot;&amp;&quot;");
    }
}
