//! The chart in the README: the times of both programs for each case, and their ratio.

use std::fmt::Write;

use super::results::Results;

const ROW: f64 = 46.0;
const LEFT: f64 = 150.0;
const WIDTH: f64 = 480.0;

/// Draws two bars for each case, scaled to the longer one, with the ratio next to them.
pub fn svg(results: &Results) -> String {
    let cases: Vec<_> = results
        .cases()
        .iter()
        .filter_map(|case| {
            Some((format!("{} ({})", case.name, case.major), case.seconds().0?, case.seconds().1))
        })
        .collect();
    let height = ROW * cases.len() as f64 + 40.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut svg, LEFT, 20.0, "start", "#888", "pg_rewind");
    text(&mut svg, LEFT + 80.0, 20.0, "start", "#0a6", "kbrecover");
    text(&mut svg, 750.0, 20.0, "end", "#888", "each case has its own scale");
    for (at, (name, theirs, ours)) in cases.iter().enumerate() {
        let top = 34.0 + ROW * at as f64;
        let longest = theirs.max(*ours);
        text(&mut svg, LEFT - 10.0, top + 21.0, "end", "#222", name);
        for (line, seconds, colour) in [(0.0, *theirs, "#bbb"), (16.0, *ours, "#0a6")] {
            let length = WIDTH * seconds / longest;
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{:.0}\" width=\"{length:.1}\" height=\"14\" fill=\"{colour}\"/>",
                top + line
            );
            text(
                &mut svg,
                LEFT + length + 6.0,
                top + line + 11.0,
                "start",
                "#222",
                &format!("{seconds:.2} s"),
            );
        }
        text(&mut svg, 750.0, top + 21.0, "end", "#222", &format!("{:.1} x", theirs / ours));
    }
    svg + "</svg>\n"
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, colour: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{words}</text>"
    );
}
