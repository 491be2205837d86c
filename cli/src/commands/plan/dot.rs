//! A plan for Graphviz.

use std::collections::HashSet;

use super::Graph;

/// Draws plans.
pub(super) fn draw(graphs: &[Graph<'_>]) -> String {
    let mut out = "digraph plan {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
    for (n, graph) in graphs.iter().enumerate() {
        let node = |id: &str| quoted(&format!("{n}/{id}"));
        out.push_str(&format!("  subgraph cluster_{n} {{\n"));
        let mut line = |text: String| out.push_str(&format!("    {text}\n"));
        line(format!("label={};", quoted(&graph.platform)));
        let mut others = Vec::new();
        for image in &graph.images {
            line(format!("{} [label={}, style=rounded];", node(&image.id), quoted(image.name)));
        }
        for step in &graph.steps {
            let colour = match step.state() {
                "hit" => "palegreen",
                "miss" => "orange",
                "fails" => "tomato",
                _ => "lightgrey",
            };
            let label = quoted(step.name);
            line(format!("{} [label={label}, style=filled, fillcolor={colour}];", node(&step.id)));
            for need in &step.needs {
                line(format!("{} -> {};", node(need), node(&step.id)));
            }
            others.extend(step.needs.iter());
        }
        line(format!("{} [label=\"image\", style=bold];", node("result")));
        if let Some(result) = &graph.result {
            line(format!("{} -> {};", node(result), node("result")));
            others.push(result);
        }
        // What is no image and no step: contexts and addresses.
        let images = graph.images.iter().map(|it| &it.id);
        let known: HashSet<&String> = images.chain(graph.steps.iter().map(|it| &it.id)).collect();
        others.retain(|it| !known.contains(it));
        others.sort();
        others.dedup();
        for other in others {
            line(format!("{} [label={}, style=dashed];", node(other), quoted(other)));
        }
        out.push_str("  }\n");
    }
    out.push_str("}\n");
    out
}

/// A text as Graphviz reads it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
