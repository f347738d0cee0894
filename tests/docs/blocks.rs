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
    /// Expected output: the lines of the next block if that has no language, or `text`.
    pub(crate) shown: Vec<String>,
    /// Line where it begins in the document, from 1.
    pub(crate) line: usize,
}

/// The blocks of a document.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// Shell and JavaScript, in order.
    pub(crate) executed: Vec<Block>,
    /// Languages and lines of all other blocks that are no output.
    pub(crate) others: Vec<(String, Vec<String>)>,
}

/// Returns the blocks of a document.
pub(crate) fn blocks(document: &str) -> Blocks {
    let mut blocks = Blocks::default();
    let mut lines = document.lines().enumerate();
    // Whether the next block may be the output of the last one.
    let mut is_executed = false;
    while let Some((index, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let code: Vec<_> =
            lines.by_ref().map(|(_, line)| line.to_owned()).take_while(|line| line != "```").collect();
        let executed = match language {
            "sh" => Some(Language::Shell),
            "js" => Some(Language::JavaScript),
            _ => None,
        };
        match executed {
            Some(language) => {
                blocks.executed.push(Block {
                    language,
                    code: code.join("\n"),
                    shown: Vec::new(),
                    line: index + 1,
                });
            }
            None if is_executed && ["", "text"].contains(&language) => {
                blocks.executed.last_mut().expect("an executed block").shown = code;
            }
            None => blocks.others.push((language.to_owned(), code)),
        }
        is_executed = executed.is_some();
    }
    blocks
}

#[test]
fn a_block_has_the_output_that_follows_it() {
    let found =
        blocks("a\n```sh\necho 1\n```\n\nprints\n\n```\n1\n```\n```rust\nx\n```\n```text\nfree\n```\n");
    let block = &found.executed[0];
    assert_eq!(found.executed.len(), 1);
    assert_eq!(
        (block.language, &*block.code, &block.shown[..]),
        (Language::Shell, "echo 1", &["1".to_owned()][..])
    );
    assert_eq!(block.line, 2);
    let other = |language: &str, line: &str| (language.to_owned(), vec![line.to_owned()]);
    assert_eq!(found.others, [other("rust", "x"), other("text", "free")]);
}
