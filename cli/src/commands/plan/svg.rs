//! A plan as a drawing, made without any other program.
//!
//! Each stage is a box with its steps from top to bottom. Boxes stand in columns: a stage is to the right of all that it
//! takes files from. What a column has between two others of an edge makes room for it, so that no edge goes through a
//! box, and boxes are ordered such that edges cross little. The colour of a step says whether its result is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use cache::StepKey;

use super::Graph;

/// Sizes in pixels.
const STEP_WIDTH: usize = 344;
const STEP_HEIGHT: usize = 40;
const STEP_GAP: usize = 14;
const PADDING: usize = 14;
const TITLE: usize = 26;
const COLUMN_GAP: usize = 90;
const ROW_GAP: usize = 26;
const LANE: usize = 12;
const MARGIN: usize = 24;
/// As many letters fit into a step.
const N_LETTERS: usize = 44;
/// How often the order in the columns is made better.
const N_SWEEPS: usize = 8;

const STYLE: &str = "\
text{font:13px ui-sans-serif,system-ui,sans-serif;fill:#1f2328}\
.mono{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}\
.small{font-size:11px;fill:#59636e}\
.stage{fill:#f6f8fa;stroke:#d1d9e0}\
.step{stroke:#8c959f;stroke-width:1.2}\
.hit{fill:#d2f4d9;stroke:#1a7f37}\
.miss{fill:#ffe2c4;stroke:#bc4c00}\
.unknown{fill:#eaeef2;stroke:#8c959f;stroke-dasharray:4 3}\
.fails{fill:#ffd3d0;stroke:#cf222e}\
.source{fill:#fff;stroke:#8c959f}\
.result{fill:#ddf4ff;stroke:#0969da;stroke-width:2}\
.edge{fill:none;stroke:#656d76;stroke-width:1.3}\
.read{stroke:#0969da}";

/// Draws plans, one below the other.
pub(super) fn draw(graphs: &[Graph<'_>]) -> String {
    let mut body = String::new();
    let (mut width, mut y) = (0, MARGIN);
    for graph in graphs {
        let drawing = Drawing::new(graph);
        let (drawn_width, drawn_height) = drawing.place();
        let title = format!("plan for {}", graph.platform);
        text(&mut body, (MARGIN, y + 14), "", &title, &title);
        y += TITLE;
        drawing.write(graph, y, &mut body);
        width = width.max(drawn_width);
        y += drawn_height + ROW_GAP;
    }
    legend(&mut body, y);
    let (width, height) = (width.max(STEP_WIDTH) + 2 * MARGIN, y + STEP_HEIGHT);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\">\n<style>{STYLE}</style>\n\
         <defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" \
         markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#656d76\"/></marker></defs>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

/// A thing with a place: something that a stage's box holds, or that stands alone.
struct Node<'a> {
    id: &'a str,
    class: &'static str,
    title: String,
    /// The upper line in the small letters.
    note: String,
}

/// What stands in a column: a stage, a source, the result, or the way of an edge.
struct Block<'a> {
    title: &'a str,
    nodes: Vec<Node<'a>>,
    column: usize,
}

impl Block<'_> {
    fn height(&self) -> usize {
        if self.nodes.is_empty() {
            return LANE;
        }
        let n_nodes = self.nodes.len();
        let nodes = n_nodes * STEP_HEIGHT + (n_nodes - 1) * STEP_GAP;
        if self.title.is_empty() { nodes } else { nodes + TITLE + PADDING }
    }
}

struct Drawing<'a> {
    blocks: Vec<Block<'a>>,
    /// Each column from top to bottom.
    columns: Vec<Vec<usize>>,
    /// Edges between blocks: the nodes, and the blocks on the way between.
    edges: Vec<Edge<'a>>,
    /// The top of each block.
    tops: Vec<usize>,
}

struct Edge<'a> {
    from: &'a str,
    to: &'a str,
    way: Vec<usize>,
    /// It is read from, and not built upon.
    is_read: bool,
}

impl<'a> Drawing<'a> {
    fn new(graph: &'a Graph<'a>) -> Self {
        let mut drawing = Self {
            blocks: blocks(graph),
            columns: Vec::new(),
            edges: Vec::new(),
            tops: Vec::new(),
        };
        let places = drawing.nodes();
        let mut edges = Vec::new();
        for step in &graph.steps {
            for (nth, need) in step.needs.iter().enumerate() {
                let is_read = nth > 0 || !step.has_parent;
                edges.push((need.as_str(), step.id.as_str(), is_read));
            }
        }
        edges.extend(graph.result.iter().map(|it| (it.as_str(), "result", false)));
        edges.retain(|it| places.contains_key(it.0) && places.contains_key(it.1));
        drawing.set_columns(&edges, &places);
        for (from, to, is_read) in edges {
            let (Some(&(a, _)), Some(&(b, _))) = (places.get(from), places.get(to)) else {
                continue;
            };
            let mut way = Vec::new();
            for column in drawing.blocks[a].column + 1..drawing.blocks[b].column {
                way.push(drawing.blocks.len());
                drawing.blocks.push(Block { title: "", nodes: Vec::new(), column });
            }
            drawing.edges.push(Edge { from, to, way, is_read });
        }
        let n_columns = drawing.blocks.iter().map(|it| it.column + 1).max().unwrap_or(0);
        drawing.columns = vec![Vec::new(); n_columns];
        for (block, column) in drawing.blocks.iter().map(|it| it.column).enumerate() {
            drawing.columns[column].push(block);
        }
        drawing.order(&places);
        drawing.stack();
        drawing
    }

    /// Where each node is: its block, and its number in there.
    fn nodes(&self) -> BTreeMap<&'a str, (usize, usize)> {
        let blocks = self.blocks.iter().enumerate();
        blocks
            .flat_map(|(block, it)| {
                it.nodes.iter().enumerate().map(move |(nth, node)| (node.id, (block, nth)))
            })
            .collect()
    }

    /// A block is to the right of those it needs, and sources are right before those that need them.
    fn set_columns(
        &mut self,
        edges: &[(&str, &str, bool)],
        places: &BTreeMap<&str, (usize, usize)>,
    ) {
        let pairs: BTreeSet<(usize, usize)> = edges
            .iter()
            .filter_map(|(from, to, _)| Some((places.get(from)?.0, places.get(to)?.0)))
            .filter(|(from, to)| from != to)
            .collect();
        // Stages need earlier ones only, so this ends; a bound keeps it so.
        for _ in 0..self.blocks.len() {
            let mut is_settled = true;
            for (from, to) in &pairs {
                let least = self.blocks[*from].column + 1;
                if self.blocks[*to].column < least {
                    self.blocks[*to].column = least;
                    is_settled = false;
                }
            }
            if is_settled {
                break;
            }
        }
        let mut has_needs = vec![false; self.blocks.len()];
        let mut nearest: Vec<Option<usize>> = vec![None; self.blocks.len()];
        for (from, to) in &pairs {
            let column = self.blocks[*to].column;
            has_needs[*to] = true;
            nearest[*from] = Some(nearest[*from].map_or(column, |it| it.min(column)));
        }
        for (block, (has_needs, nearest)) in has_needs.into_iter().zip(nearest).enumerate() {
            if let (false, Some(nearest)) = (has_needs, nearest) {
                self.blocks[block].column = nearest.saturating_sub(1);
            }
        }
    }

    /// Moves each block between those it is joined with, from left to right and back.
    fn order(&mut self, places: &BTreeMap<&str, (usize, usize)>) {
        let mut joined: Vec<Vec<usize>> = vec![Vec::new(); self.blocks.len()];
        for edge in &self.edges {
            let (Some(from), Some(to)) = (places.get(edge.from), places.get(edge.to)) else {
                continue;
            };
            let chain: Vec<usize> =
                std::iter::once(from.0).chain(edge.way.iter().copied()).chain([to.0]).collect();
            for pair in chain.windows(2).filter(|it| it[0] != it[1]) {
                joined[pair[0]].push(pair[1]);
                joined[pair[1]].push(pair[0]);
            }
        }
        let mut rank = vec![0.0_f64; self.blocks.len()];
        let set_ranks = |columns: &[Vec<usize>], rank: &mut [f64]| {
            for column in columns {
                for (nth, block) in column.iter().enumerate() {
                    rank[*block] = nth as f64 / column.len() as f64;
                }
            }
        };
        set_ranks(&self.columns, &mut rank);
        for sweep in 0..N_SWEEPS {
            for nth in 0..self.columns.len() {
                let column = if sweep % 2 == 0 { nth } else { self.columns.len() - 1 - nth };
                let mean = |block: &usize| {
                    let others = &joined[*block];
                    match others.is_empty() {
                        true => rank[*block],
                        false => {
                            others.iter().map(|it| rank[*it]).sum::<f64>() / others.len() as f64
                        }
                    }
                };
                let mut sorted: Vec<(f64, usize)> =
                    self.columns[column].iter().map(|it| (mean(it), *it)).collect();
                sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
                self.columns[column] = sorted.into_iter().map(|it| it.1).collect();
                set_ranks(&self.columns[column..=column], &mut rank);
            }
        }
    }

    /// Gives each block its top; columns are centred.
    fn stack(&mut self) {
        let height = |column: &Vec<usize>| -> usize {
            let blocks: usize = column.iter().map(|it| self.blocks[*it].height()).sum();
            blocks + column.len().saturating_sub(1) * ROW_GAP
        };
        let tallest = self.columns.iter().map(height).max().unwrap_or(0);
        let mut tops = vec![0; self.blocks.len()];
        for column in &self.columns {
            let mut y = (tallest - height(column)) / 2;
            for block in column {
                tops[*block] = y;
                y += self.blocks[*block].height() + ROW_GAP;
            }
        }
        self.tops = tops;
    }

    /// The size of it all.
    fn place(&self) -> (usize, usize) {
        let bottoms = self.blocks.iter().zip(&self.tops).map(|(block, top)| top + block.height());
        let n_columns = self.columns.len();
        let width =
            n_columns * (STEP_WIDTH + 2 * PADDING) + n_columns.saturating_sub(1) * COLUMN_GAP;
        (width, bottoms.max().unwrap_or(0))
    }

    fn left(&self, block: usize) -> usize {
        MARGIN + self.blocks[block].column * (STEP_WIDTH + 2 * PADDING + COLUMN_GAP)
    }

    /// The upper left corner of a node.
    fn corner(&self, (block, nth): (usize, usize), y: usize) -> (usize, usize) {
        let title = if self.blocks[block].title.is_empty() { 0 } else { TITLE };
        let top = y + self.tops[block] + title + nth * (STEP_HEIGHT + STEP_GAP);
        (self.left(block) + PADDING, top)
    }

    fn write(&self, graph: &Graph<'_>, y: usize, out: &mut String) {
        let places = self.nodes();
        for (block, it) in self.blocks.iter().enumerate().filter(|it| !it.1.title.is_empty()) {
            let (x, top) = (self.left(block), y + self.tops[block]);
            let (width, height) = (STEP_WIDTH + 2 * PADDING, it.height());
            let shape = rectangle((x, top), (width, height), "stage", 8);
            out.push_str(&shape);
            let title = format!("stage {}", it.title);
            text(out, (x + PADDING, top + 17), "", &title, &title);
        }
        for edge in &self.edges {
            let (Some(from), Some(to)) = (places.get(edge.from), places.get(edge.to)) else {
                continue;
            };
            out.push_str(&self.path(edge, *from, *to, y));
        }
        let keys: BTreeMap<&str, StepKey> =
            graph.steps.iter().filter_map(|it| Some((it.id.as_str(), it.key?))).collect();
        for (id, place) in &places {
            let node = &self.blocks[place.0].nodes[place.1];
            let (x, top) = self.corner(*place, y);
            let key = keys.get(id).map(|it| format!("\nkey {it}")).unwrap_or_default();
            let _ = write!(out, "<g><title>{}</title>", escaped(&format!("{}{key}", node.title)));
            let class = format!("step {}", node.class);
            out.push_str(&rectangle((x, top), (STEP_WIDTH, STEP_HEIGHT), &class, 5));
            text(out, (x + 9, top + 15), "small", &node.note, "");
            text(out, (x + 9, top + 31), "mono", &node.title, "");
            out.push_str("</g>\n");
        }
    }

    /// An edge: straight down within a block, else from side to side through the ways made for it.
    fn path(&self, edge: &Edge<'_>, from: (usize, usize), to: (usize, usize), y: usize) -> String {
        let (a, b) = (self.corner(from, y), self.corner(to, y));
        let class = if edge.is_read { "edge read" } else { "edge" };
        let mut path = String::new();
        if from.0 == to.0 && from.1 + 1 == to.1 {
            let x = a.0 + STEP_WIDTH / 2;
            let _ = write!(path, "M{x} {}V{}", a.1 + STEP_HEIGHT, b.1 - 1);
        } else if from.0 == to.0 {
            // Past the steps in between, on the right.
            let x = a.0 + STEP_WIDTH;
            let (start, end) = (a.1 + STEP_HEIGHT / 2, b.1 + STEP_HEIGHT / 2);
            let _ = write!(path, "M{x} {start}C{0} {start} {0} {end} {x} {end}", x + 46);
        } else {
            let (mut x, mut at) = (a.0 + STEP_WIDTH, a.1 + STEP_HEIGHT / 2);
            let _ = write!(path, "M{x} {at}");
            let mut curve = |x: &mut usize, at: &mut usize, to_x: usize, to_y: usize| {
                let middle = (*x + to_x) / 2;
                let _ = write!(path, "C{middle} {at} {middle} {to_y} {to_x} {to_y}");
                (*x, *at) = (to_x, to_y);
            };
            for block in &edge.way {
                let middle = y + self.tops[*block] + LANE / 2;
                let left = self.left(*block);
                curve(&mut x, &mut at, left, middle);
                // Straight through the column.
                curve(&mut x, &mut at, left + STEP_WIDTH + 2 * PADDING, middle);
            }
            curve(&mut x, &mut at, b.0 - 1, b.1 + STEP_HEIGHT / 2);
        }
        format!("<path class=\"{class}\" d=\"{path}\" marker-end=\"url(#arrow)\"/>\n")
    }
}

/// Stages with their steps and images, then what else is read, then the result.
fn blocks<'a>(graph: &'a Graph<'a>) -> Vec<Block<'a>> {
    let mut blocks: Vec<Block<'a>> = Vec::new();
    let mut stages: BTreeMap<&str, usize> = BTreeMap::new();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for image in &graph.images {
        let node = Node {
            id: &image.id,
            class: "source",
            title: image.reference.clone(),
            note: format!("image · {}", image.platform),
        };
        known.insert(&image.id);
        blocks.push(Block { title: "", nodes: vec![node], column: 0 });
    }
    for step in &graph.steps {
        known.insert(&step.id);
        let what = step.name.split_once("] ").map_or(step.name, |it| it.1);
        let key = match step.key {
            Some(_) => format!(" · {}", step.short_key()),
            None => String::new(),
        };
        let node = Node {
            id: &step.id,
            class: step.state(),
            title: what.to_owned(),
            note: format!("{} · {}{key} · line {}", step.id, step.state(), step.line),
        };
        let block = *stages.entry(step.stage).or_insert_with(|| {
            blocks.push(Block { title: step.stage, nodes: Vec::new(), column: 0 });
            blocks.len() - 1
        });
        blocks[block].nodes.push(node);
    }
    let needs = graph.steps.iter().flat_map(|it| &it.needs).chain(&graph.result);
    let others: BTreeSet<&str> =
        needs.map(String::as_str).filter(|it| !known.contains(it)).collect();
    for other in others {
        let node =
            Node { id: other, class: "source", title: other.to_owned(), note: "files".to_owned() };
        blocks.push(Block { title: "", nodes: vec![node], column: 0 });
    }
    let note = "result".to_owned();
    let node = Node { id: "result", class: "result", title: graph.platform.clone(), note };
    blocks.push(Block { title: "", nodes: vec![node], column: 0 });
    blocks
}

fn legend(out: &mut String, y: usize) {
    let mut x = MARGIN;
    for (class, words) in [
        ("hit", "hit: its result is in the store"),
        ("miss", "miss: it would run"),
        ("unknown", "unknown: depends on one that would run"),
    ] {
        out.push_str(&rectangle((x, y), (14, 14), &format!("step {class}"), 3));
        text(out, (x + 20, y + 11), "small", words, "");
        x += 40 + words.len() * 6;
    }
}

fn rectangle(at: (usize, usize), size: (usize, usize), class: &str, radius: usize) -> String {
    format!(
        "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"{radius}\"/>\n",
        at.0, at.1, size.0, size.1
    )
}

/// A line of text, cut to what fits; `whole` is shown when one points at it.
fn text(out: &mut String, (x, y): (usize, usize), class: &str, line: &str, whole: &str) {
    let line: String = line.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = match line.char_indices().nth(N_LETTERS) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.clone(),
    };
    let title = match shown == line || whole.is_empty() {
        true => String::new(),
        false => format!("<title>{}</title>", escaped(whole)),
    };
    let _ = writeln!(
        out,
        "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{title}{}</text>",
        escaped(&shown)
    );
}

/// Text as XML has it: what is a sign of XML is named, and what XML cannot hold is left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(letter),
            '\u{fffe}' | '\u{ffff}' => {}
            it if it.is_control() => {}
            it => out.push(it),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use executor::explain::State;

    use super::{super::StepNode, *};

    fn step<'a>(id: &str, stage: &'a str, needs: &[&str], name: &'a str) -> StepNode<'a> {
        StepNode {
            id: id.to_owned(),
            op: "run",
            name,
            stage,
            platform: "linux/amd64".to_owned(),
            needs: needs.iter().map(|it| (*it).to_owned()).collect(),
            has_parent: true,
            no_cache: false,
            line: 1,
            state: State::Hit,
            key: None,
            causes: Vec::new(),
        }
    }

    fn graph<'a>(steps: Vec<StepNode<'a>>, result: &str) -> Graph<'a> {
        let (platform, result) = ("linux/amd64".to_owned(), Some(result.to_owned()));
        Graph { platform, images: Vec::new(), steps, result }
    }

    #[test]
    fn text_cannot_break_out() {
        let name = "[a 1/1] RUN echo \"</text><script>\" & \u{1b}[31m\u{0}";
        let drawn = draw(&[graph(vec![step("step0", "<a>", &[], name)], "step0")]);
        assert!(!drawn.contains("<script>") && !drawn.contains('\u{1b}') && !drawn.contains('\0'));
        assert!(drawn.contains("&lt;/text&gt;&lt;script&gt;&quot; &amp; [31m"), "{drawn}");
        assert!(drawn.contains("stage &lt;a&gt;"));
    }

    #[test]
    fn what_is_needed_is_to_the_left_and_nothing_overlaps() {
        let steps = vec![
            step("step0", "a", &["context"], "[a 1/2] COPY x /"),
            step("step1", "a", &["step0"], "[a 2/2] RUN x"),
            step("step2", "b", &["step1"], "[b 1/1] RUN y"),
            step("step3", "c", &["step2", "step0", "context"], "[c 1/1] COPY --from=a /x /"),
        ];
        let graph = graph(steps, "step3");
        let drawing = Drawing::new(&graph);
        let places = drawing.nodes();
        let column = |id: &str| drawing.blocks[places[id].0].column;
        assert_eq!(
            ["context", "step0", "step1", "step2", "step3", "result"].map(column),
            [0, 1, 1, 2, 3, 4]
        );
        for (n, one) in drawing.blocks.iter().enumerate() {
            for (m, other) in drawing.blocks.iter().enumerate().skip(n + 1) {
                let apart = drawing.tops[n] + one.height() <= drawing.tops[m]
                    || drawing.tops[m] + other.height() <= drawing.tops[n];
                assert!(one.column != other.column || apart, "{n} and {m}");
            }
        }
        assert_eq!(
            drawing.edges.iter().map(|it| it.way.len()).collect::<Vec<_>>(),
            [0, 0, 0, 0, 1, 2, 0]
        );
    }
}
