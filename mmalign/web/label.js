// The keyboard of the labelling page. It keeps what is being said of one item, and hands it to gradio's hidden button.
window.mmalign = (() => {
  const byId = (id) => document.getElementById(id);
  const all = (selector, root) => [...(root || byId("stage")).querySelectorAll(selector)];
  const WAIT_MS = 8000;
  const CELLS = 8;
  let now = { turn: null };
  let outgoing = "{}";
  let busy = 0;

  // Sending

  function send(content) {
    const stage = byId("stage");
    if (!stage || busy) return;
    outgoing = JSON.stringify({ annotator: stage.dataset.annotator, shown: stage.dataset.shown, ...content });
    busy = setTimeout(() => {
      busy = 0;
      say("No answer from the server. Press the key again: nothing counts twice.");
    }, WAIT_MS);
    stage.classList.add("sent");
    byId("send").click();
  }
  function say(text) {
    const message = document.querySelector("#progress .message");
    if (message) message.textContent = text;
  }
  const choose = (choice) => send({ choice });

  // A new stage

  function setUp() {
    const found = byId("stage");
    if (!found || found.dataset.turn === now.turn) return;
    clearTimeout(busy);
    busy = 0;
    // Gradio turns the old elements into the new ones; a copy leaves behind what was listened for and written there.
    const stage = found.cloneNode(true);
    stage.classList.remove("sent");
    stage.querySelectorAll("textarea").forEach((area) => { area.value = ""; });
    stage.querySelectorAll("canvas").forEach((canvas) => { delete canvas.dataset.turned; });
    found.replaceWith(stage);
    const { turn, mode, count, annotator } = stage.dataset;
    now = {
      turn, mode, count: +count, ranks: [], tie: false, focus: 0, scores: {}, aspect: 0,
      aspects: JSON.parse(stage.dataset.aspects), scale: +stage.dataset.scale,
      regions: [], words: new Set(), part: "picture", cell: [0, 0], word: 0,
    };
    const address = new URL(location.href);
    if (address.searchParams.get("annotator") !== annotator) {
      address.searchParams.set("annotator", annotator);
      history.replaceState(null, "", address);
    }
    setUpVideos();
    setUpSounds();
    all("canvas.orbit").forEach(setUpOrbit);
    if (mode === "marks") setUpMarks();
    if (mode === "rating") setUpRating();
    if (mode === "ranking") all(".sample").forEach((figure) => figure.addEventListener("click", (event) => {
      if (!event.target.closest("audio, canvas")) rank(+figure.dataset.slot);
    }));
    draw();
  }

  // Playing

  function setUpVideos() {
    const videos = all("video");
    if (!videos.length) return;
    let ended = 0;
    videos.forEach((video) => {
      video.addEventListener("ended", () => { if (++ended >= videos.length) { ended = 0; replayVideos(); } });
      video.addEventListener("click", () => videos.forEach((v) => (v.paused ? v.play() : v.pause())));
    });
    // They begin together, and the first one keeps the time of all.
    Promise.all(videos.map((video) => new Promise((ready) => {
      if (video.readyState >= 3) ready();
      ["canplay", "error"].forEach((name) => video.addEventListener(name, ready, { once: true }));
    }))).then(replayVideos);
    videos[0].addEventListener("timeupdate", () => videos.slice(1).forEach((video) => {
      if (!video.ended && Math.abs(video.currentTime - videos[0].currentTime) > 0.15) {
        video.currentTime = videos[0].currentTime;
      }
    }));
  }
  function replayVideos() {
    all("video").forEach((video) => { video.currentTime = 0; });
    all("video").forEach((video) => video.play().catch(() => {}));
  }
  function setUpSounds() {
    const sounds = all("audio");
    sounds.forEach((sound, index) => {
      const figure = sound.closest(".sample");
      sound.addEventListener("play", () => {
        sounds.forEach((other) => { if (other !== sound) other.pause(); });
        figure.classList.add("playing");
      });
      sound.addEventListener("pause", () => figure.classList.remove("playing"));
      sound.addEventListener("ended", () => {
        figure.classList.remove("playing");
        if (now.inTurn && sounds[index + 1]) play(sounds[index + 1]);
      });
    });
  }
  function play(sound) {
    sound.currentTime = 0;
    sound.play().catch(() => {});
  }
  function replay() {
    if (!byId("stage")) return;
    replayVideos();
    const sounds = all("audio");
    now.inTurn = true;
    if (sounds.length) play(sounds[0]);
    all("canvas.orbit").forEach((canvas) => canvas.turnTo && canvas.turnTo(0.6, 0.35));
    all(".medium img").forEach((img) => { if (!img.src.startsWith("data:image/png")) img.src = img.src; });
  }

  // Objects that turn: flat triangles, the far ones first, lit from the camera

  async function setUpOrbit(canvas) {
    const answer = await fetch(canvas.dataset.mesh);
    if (!answer.ok) { canvas.remove(); return; }
    const mesh = await answer.json();
    let azimuth = 0.6, elevation = 0.35;
    const show = () => {
      const [ca, sa, ce, se] = [Math.cos(azimuth), Math.sin(azimuth), Math.cos(elevation), Math.sin(elevation)];
      const half = canvas.width / 2;
      // x to the right, y up, z towards the eye; the object's own z points up.
      const seen = mesh.vertices.map(([x, y, z]) => {
        const across = -sa * x + ca * y, towards = ca * x + sa * y;
        return [across, ce * z - se * towards, se * z + ce * towards];
      });
      const faces = mesh.faces.map((face) => {
        const [a, b, c] = face.map((i) => seen[i]);
        const u = [b[0] - a[0], b[1] - a[1], b[2] - a[2]], v = [c[0] - a[0], c[1] - a[1], c[2] - a[2]];
        const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
        const light = 0.35 + 0.65 * Math.abs(n[2]) / (Math.hypot(...n) || 1);
        const colour = [0, 1, 2].map((k) => Math.round(light * (mesh.colours
          ? (mesh.colours[face[0]][k] + mesh.colours[face[1]][k] + mesh.colours[face[2]][k]) / 3 : 184)));
        return { corners: [a, b, c], depth: a[2] + b[2] + c[2], colour: `rgb(${colour})` };
      }).sort((one, other) => one.depth - other.depth);
      const pen = canvas.getContext("2d");
      pen.fillStyle = "#fff";
      pen.fillRect(0, 0, canvas.width, canvas.height);
      faces.forEach(({ corners, colour }) => {
        pen.beginPath();
        corners.forEach(([x, y], i) => pen[i ? "lineTo" : "moveTo"](half + 0.94 * half * x, half - 0.94 * half * y));
        pen.closePath();
        pen.fillStyle = pen.strokeStyle = colour;
        pen.fill();
        pen.stroke();
      });
      canvas.dataset.turned = `${azimuth.toFixed(2)},${elevation.toFixed(2)}`;
    };
    canvas.turnTo = (a, e) => { azimuth = a; elevation = Math.max(-1.5, Math.min(1.5, e)); show(); };
    canvas.turnBy = (a, e) => canvas.turnTo(azimuth + a, elevation + e);
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); canvas.held = true; });
    canvas.addEventListener("pointerup", () => { canvas.held = false; });
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.held) canvas.turnBy(-event.movementX / 80, event.movementY / 80);
    });
    show();
  }
  const turnAll = (a, e) => all("canvas.orbit").forEach((canvas) => canvas.turnBy && canvas.turnBy(a, e));

  // Ranking: ranks in the order that samples were named, ties by t

  function rank(slot) {
    if (slot >= now.count || now.ranks.some((entry) => entry.slot === slot)) return;
    const last = now.ranks[now.ranks.length - 1];
    now.ranks.push({ slot, rank: !last ? 1 : last.rank + (now.tie ? 0 : 1) });
    now.tie = false;
    draw();
  }
  function sendRanks() {
    if (now.ranks.length < now.count) { say(`${now.count - now.ranks.length} have no rank yet`); return; }
    const ranks = Array(now.count);
    now.ranks.forEach(({ slot, rank: place }) => { ranks[slot] = place; });
    choose({ ranks });
  }

  // Rating

  function setUpRating() {
    all(".aspect").forEach((row, index) => row.querySelectorAll("button").forEach((button) => {
      button.addEventListener("click", () => { now.aspect = index; score(+button.dataset.score); button.blur(); });
    }));
  }
  function score(number) {
    if (number < 1 || number > now.scale) return;
    now.scores[now.aspects[now.aspect]] = number;
    const next = now.aspects.findIndex((name) => !(name in now.scores));
    if (next >= 0) now.aspect = next;
    draw();
  }
  function sendScores() {
    const missing = now.aspects.filter((name) => !(name in now.scores));
    if (missing.length) { say(`no number yet for ${missing.join(", ")}`); return; }
    choose({ scores: now.scores, rationale: byId("stage").querySelector("textarea").value });
  }

  // Marks: boxes on the picture, words of the prompt

  function setUpMarks() {
    const medium = byId("stage").querySelector(".medium");
    const picture = medium.querySelector("img");
    if (picture) {
      const board = document.createElement("div");
      board.className = "board";
      // As large as the picture itself, so that places on it are places in the picture.
      const ratio = picture.getAttribute("width") / picture.getAttribute("height");
      Object.assign(board.style, { aspectRatio: ratio, width: `min(100%, ${62 * ratio}vh)` });
      picture.replaceWith(board);
      board.append(picture);
      now.board = board;
      picture.draggable = false;
      let from = null;
      const place = (event) => {
        const box = board.getBoundingClientRect();
        const inside = (value) => Math.max(0, Math.min(1, value));
        return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)];
      };
      const span = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
      board.addEventListener("pointerdown", (event) => {
        const index = event.target.dataset.region;
        if (index !== undefined) { now.regions.splice(+index, 1); draw(); return; }
        from = place(event);
        board.setPointerCapture(event.pointerId);
      });
      board.addEventListener("pointermove", (event) => { if (from) { now.draft = span(from, place(event)); draw(); } });
      board.addEventListener("pointerup", () => {
        const box = now.draft;
        from = now.draft = null;
        if (box && box[2] - box[0] > 0.01 && box[3] - box[1] > 0.01) now.regions.push(box);
        draw();
      });
    } else {
      now.part = "words";
    }
    all(".word").forEach((word) => word.addEventListener("click", () => toggleWord(+word.dataset.word)));
  }
  function toggleWord(index) {
    now.word = index;
    if (!now.words.delete(index)) now.words.add(index);
    draw();
  }
  function toggleCell() {
    const box = [now.cell[0], now.cell[1], now.cell[0] + 1, now.cell[1] + 1].map((n) => n / CELLS);
    const index = now.regions.findIndex((region) => region.every((n, i) => n === box[i]));
    if (index >= 0) now.regions.splice(index, 1); else now.regions.push(box);
    draw();
  }
  function moveMark(across, down) {
    const inside = (value, most) => Math.max(0, Math.min(most - 1, value));
    if (now.part === "words") now.word = inside(now.word + across + down, all(".word").length);
    else now.cell = [inside(now.cell[0] + across, CELLS), inside(now.cell[1] + down, CELLS)];
    draw();
  }

  // What is being said, drawn

  function draw() {
    const stage = byId("stage");
    if (now.mode === "ranking") {
      all(".sample").forEach((figure) => {
        const entry = now.ranks.find(({ slot }) => slot === +figure.dataset.slot);
        figure.dataset.rank = entry ? entry.rank : "";
        figure.classList.toggle("focus", +figure.dataset.slot === now.focus);
      });
      stage.classList.toggle("tying", now.tie);
    }
    if (now.mode === "rating") all(".aspect").forEach((row, index) => {
      row.classList.toggle("focus", index === now.aspect);
      row.querySelectorAll("button").forEach((button) => {
        button.classList.toggle("chosen", +button.dataset.score === now.scores[row.dataset.aspect]);
      });
    });
    if (now.mode === "marks") {
      all(".word").forEach((word) => {
        const index = +word.dataset.word;
        word.classList.toggle("wrong", now.words.has(index));
        word.classList.toggle("focus", now.part === "words" && index === now.word);
      });
      if (now.board) {
        now.board.querySelectorAll(".region, .cell").forEach((old) => old.remove());
        const add = (kind, [left, top, right, bottom], index) => {
          const box = document.createElement("div");
          box.className = kind;
          if (index !== undefined) box.dataset.region = index;
          Object.assign(box.style, {
            left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%`,
          });
          now.board.append(box);
        };
        now.regions.forEach((region, index) => add("region", region, index));
        if (now.draft) add("region draft", now.draft);
        if (now.part === "picture") {
          const [x, y] = now.cell;
          add("cell", [x / CELLS, y / CELLS, (x + 1) / CELLS, (y + 1) / CELLS]);
        }
      }
    }
  }

  // Keys

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const MODES = {
    pairs(key, shift) {
      if (key === "ArrowLeft" || key === "ArrowRight") {
        choose({ choice: key === "ArrowLeft" ? "left" : "right", strength: shift ? 1 : 0.5 });
      } else if (key === "ArrowUp" || key === "ArrowDown") {
        choose({ choice: key === "ArrowUp" ? "tie" : "both_bad" });
      } else if (/^[12]$/.test(key) && all("audio")[key - 1]) {
        now.inTurn = false;
        play(all("audio")[key - 1]);
      } else return false;
      return true;
    },
    ranking(key) {
      if (/^[1-9]$/.test(key)) rank(key - 1);
      else if (key === "ArrowLeft" || key === "ArrowRight") {
        now.focus = Math.max(0, Math.min(now.count - 1, now.focus + ARROWS[key][0]));
        draw();
      } else if (key === "ArrowUp") rank(now.focus);
      else if (key === "Backspace" || key === "ArrowDown") { now.ranks.pop(); draw(); }
      else if (key === "t") { now.tie = !now.tie && now.ranks.length > 0; draw(); }
      else if (key === "Enter") sendRanks();
      else return false;
      return true;
    },
    rating(key) {
      const name = now.aspects[now.aspect];
      if (/^[1-9]$/.test(key)) score(+key);
      else if (key === "ArrowUp" || key === "ArrowDown") {
        now.aspect = Math.max(0, Math.min(now.aspects.length - 1, now.aspect + ARROWS[key][1]));
        draw();
      } else if (key === "ArrowLeft" || key === "ArrowRight") {
        const middle = Math.ceil(now.scale / 2);
        const number = name in now.scores ? now.scores[name] + ARROWS[key][0] : middle;
        now.scores[name] = Math.max(1, Math.min(now.scale, number));
        draw();
      } else if (key === "r") byId("stage").querySelector("textarea").focus();
      else if (key === "Enter") sendScores();
      else return false;
      return true;
    },
    binary(key) {
      if (key !== "ArrowLeft" && key !== "ArrowRight") return false;
      choose({ label: key === "ArrowRight" });
      return true;
    },
    marks(key) {
      if (ARROWS[key]) moveMark(...ARROWS[key]);
      else if (key === "x") { if (now.part === "words") toggleWord(now.word); else toggleCell(); }
      else if (key === "w") { now.part = now.part === "words" && now.board ? "picture" : "words"; draw(); }
      else if (key === "Enter") choose({ regions: now.regions, words: [...now.words] });
      else return false;
      return true;
    },
  };
  const TURNS = { a: [-0.3, 0], d: [0.3, 0], e: [0, 0.3], c: [0, -0.3] };
  function press(key, shift) {
    if (!byId("stage") || busy) return true;
    if (key === "u") send({ undo: true });
    else if (!now.mode) return false;
    else if (key === " ") replay();
    else if (key === "s") choose({ skipped: true });
    else if (TURNS[key] && all("canvas.orbit").length) turnAll(...TURNS[key]);
    else return MODES[now.mode](key, shift);
    return true;
  }
  document.addEventListener("keydown", (event) => {
    const writing = /^(INPUT|TEXTAREA)$/.test(event.target.tagName);
    if (writing && event.key === "Escape") event.target.blur();
    if (writing || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const moves = ARROWS[key] && now.mode !== "pairs" && now.mode !== "binary";
    // A key that is held down says one thing.
    if (event.repeat && !moves && !TURNS[key]) { event.preventDefault(); return; }
    if (press(key, event.shiftKey)) { event.preventDefault(); event.stopPropagation(); }
  }, true);

  new MutationObserver(setUp).observe(document.documentElement, { childList: true, subtree: true });
  return {
    outgoing: () => outgoing,
    name: () => new URLSearchParams(location.search).get("annotator") || "",
    click(key) { if (document.activeElement) document.activeElement.blur(); press(key, false); },
    state: () => now,
  };
})();
