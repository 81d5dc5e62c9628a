"""Answer questions about forty islands that do not exist, from 200 passages that no model has seen.

python examples/rag_200_passages.py                                 # a small model on this machine
python examples/rag_200_passages.py --lm openai/gpt-5-mini          # the key is in OPENAI_API_KEY
python examples/rag_200_passages.py --lm any/name --base-url http://127.0.0.1:8000/v1
"""

from __future__ import annotations

import argparse
from pathlib import Path

import otpy
from otpy.retrieval import BM25, ENGLISH, Tokenizer

PASSAGES = Path(__file__).with_name("islands.txt").read_text(encoding="utf-8").splitlines()
DEMOS = [
    {
        "context": "[1] The bridge of Orm was built in 1888 and is 73 metres long.",
        "question": "When was the bridge of Orm built?",
        "response": "The bridge of Orm was built in 1888.",
    },
    {
        "context": "[1] The train to Tull departs from Wick every day at 11:55.",
        "question": "At what time does the train to Tull depart?",
        "response": "The train to Tull departs at 11:55.",
    },
    {
        "context": "[1] Sund has 64 shops, most of which are in the street of Vik.",
        "question": "How many shops has Sund?",
        "response": "Sund has 64 shops.",
    },
]
QUESTIONS = {
    "When was the lighthouse of Gristen built?": "1926",
    "From where does the ferry to Loam leave?": "Lowick",
    "What do the people of Calder eat on the first day of spring?": "saffron soup",
    "What is the highest point of Nessa called?": "Old Tooth",
    "How many inhabitants has Umber?": "497",
    "In which town do most of the inhabitants of Quillon live?": "Oldquay",
    "How high is the lighthouse of Umber?": "28",
    "At what time does the ferry to Gristen leave?": "19:40",
}


def mentions(example: otpy.Example, prediction: otpy.Prediction, trace: object = None) -> bool:
    return example.response in prediction.response


def main(lm: str, base_url: str | None) -> None:
    index = BM25(PASSAGES, tokenizer=Tokenizer(ENGLISH))
    rag = otpy.RAG(index, "context, question -> response", k=1, max_tokens=60, demos=DEMOS)
    alone = otpy.Predict("question -> response", max_tokens=60, demos=DEMOS)
    devset = [otpy.Example(question=q, response=a).with_inputs("question") for q, a in QUESTIONS.items()]
    evaluate = otpy.Evaluate(devset, metric=mentions)
    print(rag.render())
    with otpy.start(lm=lm, base_url=base_url, temperature=0):
        for question in QUESTIONS:
            answered = rag(question=question)
            print(f"\n{question}\n  {answered.response}\n  from: {answered.passages[0]}")
        print(f"\nwithout passages: {evaluate(alone)}")
        print(f"with passages:    {evaluate(rag)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lm", default="local/smollm2-135m")
    parser.add_argument("--base-url", help="the address of an OpenAI-compatible server")
    arguments = parser.parse_args()
    main(arguments.lm, arguments.base_url)
