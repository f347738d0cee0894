//! Extracts the code blocks of a Markdown document.

/// Language of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Shell,
    JavaScript,
}

/// A block that is executed.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) language: Language,
    pub(crate) code: String,
    /// Expected output: the lines of the next block if that has no language.
    pub(crate) shown: Vec<String>,
    /// Line where it begins in the document, from 1.
    pub(crate) line: usize,
}

/// Returns the shell and JavaScript blocks of a document, in order.
pub(crate) fn blocks(document: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = document.lines().enumerate();
    // Whether the next block may be the output of the last one.
    let mut is_run = false;
    while let Some((index, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let code: Vec<_> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        let block = |language| Block { language, code: code.join("\n"), shown: Vec::new(), line: index + 1 };
        match language {
            "sh" => blocks.push(block(Language::Shell)),
            "js" => blocks.push(block(Language::JavaScript)),
            "" if is_run => {
                let last = blocks.last_mut().expect("a block that is run");
                last.shown = code.iter().map(|line| (*line).to_owned()).collect();
            }
            _ => {}
        }
        is_run = matches!(language, "sh" | "js");
    }
    blocks
}

#[test]
fn a_block_has_the_output_that_follows_it() {
    let found = blocks("a\n```sh\necho 1\n```\n\nprints\n\n```\n1\n```\n```rust\nx\n```\n```\nfree\n```\n");
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].language, &*found[0].code, &found[0].shown[..]),
        (Language::Shell, "echo 1", &["1".to_owned()][..])
    );
    assert_eq!(found[0].line, 2);
}
