"""What models said as HTML: any text is shown, and none is markup."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from spark_rl.demo.ask import Attempt, Comparison
from spark_rl.demo.cards import attempts, comparison, note
from spark_rl.inference import Opinion, Round, Trace
from spark_rl.problem import Problem, Verdict

EVIL = "</pre><script>window.pwned = 1</script><img src=x onerror='pwned = 2'>\" ' & ${pwned=3} {{pwned}} \x1b[2J\u202e"
OURS = {"div", "section", "article", "h3", "h4", "p", "pre", "code", "span", "strong"}


class Reader(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def pages(text: str) -> list[str]:
    problem = Problem(id="p", question=text, answer=text, alternatives=(text,))
    turn = Round(text, text, text, accepted=False, probability=0.25)
    trace = Trace(problem, (turn, Round(text, text)))
    found = [Attempt(text, trace, ended=True)]
    said = Comparison((Opinion(text, True, 1, 0.5),) * 2, ((text, "A"), (text, None)), ended=True)
    return [attempts(found, problem, [Verdict(0.0, "wrong", text)]), comparison(said), note(text)]


@given(st.text(max_size=60) | st.just(EVIL))
def test_no_text_is_markup(text: str) -> None:
    for page in pages(text):
        read = Reader(page)
        assert read.tags <= OURS
        assert read.attributes <= {"class", "style", "role", "aria-hidden"}


def test_hostile_text_is_shown_as_it_is() -> None:
    for page in pages(EVIL):
        text = Reader(page).text
        assert "<script>window.pwned = 1</script><img src=x onerror='pwned = 2'>" in text
        assert "\x1b" not in text
        assert "\u202e" not in text


def test_an_attempt_says_what_is_being_done() -> None:
    problem = Problem(id="p", question="q", answer="7")
    first = Round(r"\boxed{7}", "7")
    judged = Round(r"\boxed{7}", "7", "fine", accepted=True, probability=0.875)
    rejected = Round(r"\boxed{7}", "7", "bad", accepted=False, probability=0.125)
    assert "answering" in attempts([Attempt("m")])
    assert "judging" in attempts([Attempt("m", Trace(problem, (first,)))])
    assert "reflecting" in attempts([Attempt("m", Trace(problem, (rejected,)))])
    assert "…" not in attempts([Attempt("m", Trace(problem, (judged,)))])
    whole = attempts([Attempt("m", Trace(problem, (judged,)), ended=True)], problem, [Verdict(1.0, "correct", "7")])
    text = Reader(whole).text
    assert "Judge acceptsP(Yes) 0.875" in text
    assert "Final answer: 7" in text
    assert "Gold answer: 7right" in text
    assert "7" not in Reader(attempts([Attempt("m")], problem)).text, "gold waits for the verdict"


def test_a_comparison_says_whether_the_orders_agree() -> None:
    opinions = (Opinion("a", True, 1, 0.9), Opinion("b", None, 1, None))
    agreed = Comparison(opinions, (("x", "B"), ("y", "B")), ended=True)
    text = Reader(comparison(agreed)).text
    assert "Alone, A is rightP(Yes) 0.900" in text
    assert "Alone, B has no verdict that can be read" in text
    assert "Better: B, in both orders" in text
    torn = Comparison(opinions, (("x", "A"), ("y", "B")), ended=True)
    assert "the two orders do not agree" in Reader(comparison(torn)).text
