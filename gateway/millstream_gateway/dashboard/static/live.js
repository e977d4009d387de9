// Follow a run on its page, and choose all rows of a table. Everything else works without scripts.
"use strict";

const SHOWN = 200;

function follow(list) {
  const source = new EventSource(list.dataset.source);
  const end = document.getElementById("events-end");
  function say(text) {
    const line = document.createElement("p");
    line.textContent = text;
    list.append(line);
    while (list.children.length > SHOWN) list.firstChild.remove();
    list.scrollTop = list.scrollHeight;
  }
  const lines = {
    emit: (told) => `${told.name} ${JSON.stringify(told.data)}`,
    step: (told) => `${told.data.step} ${told.name} ${told.data.error || told.data.status || ""}`,
    text: (told) => told.data.text,
    left_out: (told) => `(${told.data.events || "some"} events are not kept any more)`,
  };
  for (const [kind, line] of Object.entries(lines)) {
    source.addEventListener(kind, (message) => say(line(JSON.parse(message.data))));
  }
  source.addEventListener("end", (message) => {
    const told = JSON.parse(message.data);
    end.textContent = `The run is ${told.state}.`;
    source.close();
  });
  source.addEventListener("gone", () => source.close());
  window.addEventListener("pagehide", () => source.close());
}

for (const list of document.querySelectorAll("[data-source]")) follow(list);
for (const button of document.querySelectorAll("[data-all]")) {
  button.addEventListener("click", () => {
    for (const box of button.form.elements[button.dataset.all].length
      ? button.form.elements[button.dataset.all]
      : [button.form.elements[button.dataset.all]]) box.checked = true;
  });
}
