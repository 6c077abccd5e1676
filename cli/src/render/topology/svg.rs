//! The tree of domains as a picture: boxes within boxes, a row of squares for each node, one for each GPU.
//!
//! The picture is a function of the drawing alone. Boxes stand beside each other while they fit into a page and wrap then; colours
//! follow the reader's light or dark mode.

use std::fmt::Write as _;

use super::{Drawing, Gpus, HostDrawing};
use crate::render::style::printable;

/// Pixels: side of a GPU's square, and the gap between squares.
const CELL: u32 = 10;
const GAP: u32 = 2;
/// Pixels around what is in a box, and height of its title.
const PAD: u32 = 8;
const TITLE: u32 = 18;
/// Pixels of a character of a title, about.
const CHARACTER: u32 = 7;
/// Pixels for a node's name, and height of its row.
const NAME: u32 = 112;
const ROW: u32 = 16;
/// Pixels after which boxes begin a new line.
const PAGE: u32 = 1_200;
/// Squares of a row; a node with more has its numbers alone.
const SQUARES: i64 = 16;

/// A box with its place.
struct Placed<'a> {
    x: u32,
    y: u32,
    content: Sized<'a>,
}

/// A box with its size.
struct Sized<'a> {
    drawing: &'a Drawing,
    width: u32,
    height: u32,
    inside: Vec<Placed<'a>>,
}

/// The picture as an SVG document.
pub(crate) fn picture(drawing: &Drawing) -> String {
    let root = size(drawing);
    let (width, height) = (root.width + 2 * PAD, root.height + 2 * PAD);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"topology of the cluster\">\n<style>\n{STYLE}</style>\n<rect class=\"page\" width=\"{width}\" height=\"{height}\"/>\n"
    );
    put(&root, PAD, PAD, &mut svg);
    svg.push_str("</svg>\n");
    svg
}

const STYLE: &str = "\
.page{fill:#fff}.box{fill:none;stroke:#94a3b8}text{font:12px ui-sans-serif,system-ui,sans-serif;fill:#0f172a}.quiet{fill:#64748b}
.used{fill:#0891b2}.free{fill:#bbf7d0;stroke:#16a34a}.shut{fill:#fbbf24}
@media (prefers-color-scheme:dark){.page{fill:#0f172a}.box{stroke:#475569}text{fill:#e2e8f0}.quiet{fill:#94a3b8}.free{fill:#14532d}}
";

fn size(drawing: &Drawing) -> Sized<'_> {
    let mut inside = Vec::new();
    let (mut x, mut y, mut line, mut right) = (PAD, TITLE + PAD, 0, 0);
    for below in &drawing.domains {
        let content = size(below);
        if x > PAD && x + content.width > PAGE {
            (x, y, line) = (PAD, y + line + PAD, 0);
        }
        let (width, height) = (content.width, content.height);
        inside.push(Placed { x, y, content });
        right = right.max(x + width);
        x += width + PAD;
        line = line.max(height);
    }
    let rows = u32::try_from(drawing.hosts.len()).unwrap_or(u32::MAX).saturating_mul(ROW);
    let bottom = y + line + if line > 0 && rows > 0 { PAD } else { 0 } + rows;
    let squares = drawing.hosts.iter().map(|host| squares(host.gpus)).max().unwrap_or(0);
    let hosts = if drawing.hosts.is_empty() { 0 } else { PAD + NAME + squares * (CELL + GAP) };
    let title = u32::try_from(title(drawing).chars().count()).unwrap_or(0) * CHARACTER + PAD;
    Sized { drawing, width: right.max(hosts).max(title) + PAD, height: bottom + PAD, inside }
}

/// Squares that a node has in its row.
fn squares(gpus: Gpus) -> u32 {
    if gpus.total <= SQUARES { u32::try_from(gpus.total).unwrap_or(0) } else { 8 }
}

fn title(drawing: &Drawing) -> String {
    let Drawing { name, nodes, gpus, .. } = drawing;
    let name = printable(name);
    if gpus.total == 0 {
        format!("{name} · {nodes} nodes")
    } else {
        format!("{name} · {} of {} GPUs free", gpus.free, gpus.total)
    }
}

fn put(content: &Sized<'_>, x: u32, y: u32, svg: &mut String) {
    let Sized { drawing, width, height, inside } = content;
    let _ = writeln!(svg, "<rect class=\"box\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"4\"/>");
    let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\">{}</text>", x + PAD, y + TITLE, escape(&title(drawing)));
    for placed in inside {
        put(&placed.content, x + placed.x, y + placed.y, svg);
    }
    let rows = u32::try_from(drawing.hosts.len()).unwrap_or(0) * ROW;
    for (row, host) in (0..).zip(&drawing.hosts) {
        put_host(host, x + PAD, y + height - PAD - rows + row * ROW, svg);
    }
}

fn put_host(host: &HostDrawing, x: u32, y: u32, svg: &mut String) {
    let shown: String = printable(&host.name).chars().take(16).collect();
    let gpus = host.gpus;
    let told = host.closed.map(|closed| format!(", {closed}")).unwrap_or_default();
    let _ = writeln!(
        svg,
        "<g><title>{}: {} of {} GPUs free{told}</title><text class=\"quiet\" x=\"{x}\" y=\"{}\">{}</text>",
        escape(&printable(&host.name)),
        gpus.free,
        gpus.total,
        y + CELL,
        escape(&shown)
    );
    if gpus.total > SQUARES {
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\">{} of {}</text>", x + NAME, y + CELL, gpus.free, gpus.total);
    } else {
        for at in 0..squares(gpus) {
            let class = match i64::from(at) {
                at if at < gpus.used => "used",
                _ if host.closed.is_some() => "shut",
                _ => "free",
            };
            let left = x + NAME + at * (CELL + GAP);
            let _ =
                writeln!(svg, "<rect class=\"{class}\" x=\"{left}\" y=\"{y}\" width=\"{CELL}\" height=\"{CELL}\"/>");
        }
    }
    svg.push_str("</g>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{host, hosts};
    use super::super::{Host, draw};
    use super::*;
    use flowforge_topology_core::{Levels, standard};

    fn svg(hosts: &[Host]) -> String {
        picture(&draw(Levels::new(standard()).expect("valid"), hosts, None))
    }

    /// Rectangles of boxes: x, y, width, height.
    fn boxes(svg: &str) -> Vec<[u32; 4]> {
        let number = |line: &str, key: &str| -> u32 {
            let rest = line.split_once(&format!(" {key}=\"")).expect("the attribute").1;
            rest.split('"').next().expect("a value").parse().expect("a number")
        };
        let lines = svg.lines().filter(|line| line.starts_with("<rect class=\"box\""));
        lines.map(|line| ["x", "y", "width", "height"].map(|key| number(line, key))).collect()
    }

    #[test]
    fn each_gpu_is_a_square_and_each_domain_a_box() {
        let svg = svg(&hosts());
        let count = |what: &str| svg.matches(what).count();
        assert_eq!([count("class=\"used\""), count("class=\"free\""), count("class=\"shut\"")], [15, 4, 5]);
        assert_eq!(count("class=\"box\""), 3, "the cluster and two racks");
        assert!(svg.contains("<title>d2: 0 of 8 GPUs free, cordoned</title>"));
        assert!(svg.contains(">rack/r1 · 4 of 16 GPUs free</text>"));
    }

    #[test]
    fn boxes_lie_within_the_page_and_beside_each_other() {
        let many: Vec<Host> = (0..60).map(|at| host(&format!("n{at:02}"), &format!("r{}", at / 2), at % 9)).collect();
        let boxes = boxes(&svg(&many));
        assert_eq!(boxes.len(), 31);
        let (page, racks) = boxes.split_first().expect("a page");
        let inside = |[x, y, w, h]: &[u32; 4]| {
            *x > page[0] && *y > page[1] && x + w < page[0] + page[2] && y + h < page[1] + page[3]
        };
        assert!(racks.iter().all(inside), "{boxes:?}");
        let apart = |a: &[u32; 4], b: &[u32; 4]| {
            a[0] + a[2] <= b[0] || b[0] + b[2] <= a[0] || a[1] + a[3] <= b[1] || b[1] + b[3] <= a[1]
        };
        for (at, one) in racks.iter().enumerate() {
            assert!(racks.iter().skip(at + 1).all(|other| apart(one, other)), "{one:?} overlaps");
        }
        assert!(page[2] <= PAGE + 4 * PAD, "it wraps");
    }

    #[test]
    fn names_from_elsewhere_cannot_break_the_document() {
        let svg = svg(&[host("a<b", "r\"&", 20), Host { gpus: 64, ..host("large", "r", 1) }]);
        assert!(svg.contains("a&lt;b") && svg.contains("r&quot;&amp;") && !svg.contains("a<b"));
        assert!(svg.contains(">63 of 64</text>"), "too many for squares");
    }
}
