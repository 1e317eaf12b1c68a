//! The chart in `docs/internals/performance.md`: the times of both programs for each case until the target streams, and their ratio.

use std::fmt::Write;

use super::programs::Program;
use super::results::Results;

const ROW: f64 = 46.0;
const LEFT: f64 = 150.0;
const WIDTH: f64 = 430.0;

/// The seconds of one program: of the rewind, and until the target streams.
type Times = (f64, f64);

/// Draws two bars for each case, scaled to the longer one, with the ratio next to them. The rewind is the dark part of a
/// bar, and what the server does after its start is the light one. A program other than pg_rewind is named in its row.
pub fn svg(results: &Results) -> String {
    let cases: Vec<(String, Program, Times, Times)> = results
        .cases()
        .iter()
        .filter_map(|case| {
            let ((theirs, ours), (their_wait, our_wait)) = (case.seconds(), case.seconds_until_streaming());
            let name = format!("{} ({})", case.name, case.major);
            Some((name, case.opponent, (theirs?, their_wait?), (ours, our_wait)))
        })
        .collect();
    let height = ROW * cases.len() as f64 + 40.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut svg, LEFT, 20.0, "start", "#888", "pg_rewind");
    text(&mut svg, LEFT + 80.0, 20.0, "start", "#0a6", "kbrecover");
    text(&mut svg, LEFT + 160.0, 20.0, "start", "#222", "dark: rewind, light: start until streaming");
    text(&mut svg, 750.0, 20.0, "end", "#888", "own scale each");
    for (at, (name, opponent, theirs, ours)) in cases.iter().enumerate() {
        let top = 34.0 + ROW * at as f64;
        let longest = theirs.1.max(ours.1);
        text(&mut svg, LEFT - 10.0, top + 21.0, "end", "#222", name);
        if *opponent != Program::PgRewind {
            text(&mut svg, LEFT - 10.0, top + 35.0, "end", "#888", opponent.name());
        }
        bar(&mut svg, top, *theirs, longest, ["#888", "#ccc"]);
        bar(&mut svg, top + 16.0, *ours, longest, ["#0a6", "#8dc"]);
        text(&mut svg, 750.0, top + 21.0, "end", "#222", &format!("{:.1} x", theirs.1 / ours.1));
    }
    svg + "</svg>\n"
}

fn bar(svg: &mut String, top: f64, (rewind, until_streaming): Times, longest: f64, colours: [&str; 2]) {
    let end = WIDTH * until_streaming / longest;
    let part = WIDTH * rewind / longest;
    for (left, length, colour) in [(LEFT, part, colours[0]), (LEFT + part, end - part, colours[1])] {
        let _ = writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{top:.0}\" width=\"{length:.1}\" height=\"14\" fill=\"{colour}\"/>"
        );
    }
    let words = format!("{rewind:.2} + {:.2} s", until_streaming - rewind);
    text(svg, LEFT + end + 6.0, top + 11.0, "start", "#222", &words);
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, colour: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{words}</text>"
    );
}
