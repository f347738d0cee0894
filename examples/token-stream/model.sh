#!/bin/sh
# Stands for a language model: writes a text token by token, one a line, with a pause before each.
text="A stream keeps each token at a position of its own . A reader that loses its connection asks for what follows the last token \
that it has , and nothing has to be generated again ."
for token in $text; do
  sleep 0.05
  echo "$token "
done
