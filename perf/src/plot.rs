//! Bars of both pools side by side, as SVG.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::failure::Failure;

const SIZE: (u32, u32) = (760, 320);
const OWN: RGBColor = RGBColor(0x1b, 0x7f, 0x79);
const PEER: RGBColor = RGBColor(0xb0, 0xb7, 0xbf);
/// The width of a bar, where groups are one apart.
const BAR: f64 = 0.32;

/// A figure of both pools, for several loads: what, ours, the peer's.
pub(crate) struct Bars {
    pub(crate) title: &'static str,
    pub(crate) groups: Vec<(String, Option<f64>, Option<f64>)>,
}

/// Draws it, on a logarithmic scale, as the pools are orders of magnitude apart; none where there is nothing to draw.
pub(crate) fn bars(plot: &Bars) -> Result<Option<String>, Failure> {
    let values =
        || plot.groups.iter().flat_map(|(_, own, peer)| [*own, *peer]).flatten().filter(|value| *value > 0.0);
    let (min, max) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
    if max == 0.0 {
        return Ok(None);
    }
    let mut svg = String::new();
    // Above the bars is room for the legend.
    draw(plot, (min / 3.0, max * 8.0), &mut svg)
        .map_err(|error| Failure::Drawing(format!("the plot \"{}\" cannot be drawn: {error}", plot.title)))?;
    Ok(Some(svg))
}

fn draw(plot: &Bars, range: (f64, f64), svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let groups = plot.groups.len();
    let mut chart = ChartBuilder::on(&area)
        .caption(plot.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..groups as f64, (range.0..range.1).log_scale())?;
    let label = |at: &f64| {
        let group = if (at.fract() - 0.5).abs() < 0.01 { plot.groups.get(*at as usize) } else { None };
        group.map_or_else(String::new, |(label, ..)| label.clone())
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_labels(2 * groups + 1)
        .x_label_formatter(&label)
        .y_label_formatter(&|value| format!("{value}"))
        .label_style(("sans-serif", 13))
        .draw()?;
    for (pool, color, side) in [("Adit", OWN, -1.0), ("SRI pool_sv2", PEER, 1.0)] {
        let bar = |at: usize, value: f64| {
            let middle = at as f64 + 0.5 + side * BAR / 2.0;
            ([(middle - BAR / 2.0, range.0), (middle + BAR / 2.0, value)], middle)
        };
        let value = |group: &(String, Option<f64>, Option<f64>)| if side < 0.0 { group.1 } else { group.2 };
        let shown = || {
            let values = plot.groups.iter().enumerate().filter_map(|(at, group)| Some((at, value(group)?)));
            values.filter(|(_, value)| *value > 0.0)
        };
        chart
            .draw_series(shown().map(|(at, value)| Rectangle::new(bar(at, value).0, color.filled())))?
            .label(pool)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], color.filled()));
        let style = ("sans-serif", 12).into_text_style(&area).pos(Pos::new(HPos::Center, VPos::Bottom));
        chart.draw_series(shown().map(|(at, value)| {
            Text::new(format!("{value:.3}"), (bar(at, value).1, value * 1.05), style.clone())
        }))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", 13))
        .border_style(PEER)
        .background_style(WHITE)
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_drawn_for_what_there_is() {
        let plot = Bars {
            title: "CPU per share, us",
            groups: vec![
                ("A".to_owned(), Some(3.0), Some(12.0)),
                ("B".to_owned(), None, Some(14.0)),
                ("C".to_owned(), Some(0.0), None),
            ],
        };
        let svg = bars(&plot).unwrap().unwrap();
        let bars_of = |color: &str| svg.matches(&format!("fill=\"{color}\"")).count();
        // One more each in the legend.
        assert_eq!((bars_of("#1B7F79"), bars_of("#B0B7BF")), (2, 3), "{svg}");
        assert!(svg.contains("CPU per share, us") && svg.contains("14.000"), "{svg}");
    }

    #[test]
    fn nothing_is_not_drawn() {
        let plot = Bars { title: "", groups: vec![("A".to_owned(), None, None)] };
        assert_eq!(bars(&plot).unwrap(), None);
    }
}
