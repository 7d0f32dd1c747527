// 3D viewer of a report: plain WebGL, no library. One call shows one scene in one element.
// World is patient RAS+ in mm: +x right, +y anterior, +z superior.
"use strict";

const VERTEX_SHADER = `
attribute vec3 position, normal;
uniform mat4 view, projection;
varying vec3 toEye, n;
void main() {
  vec4 p = view * vec4(position, 1.0);
  toEye = -p.xyz;
  n = mat3(view) * normal;
  gl_Position = projection * p;
}`;

const FRAGMENT_SHADER = `
precision mediump float;
uniform vec4 colour;
varying vec3 toEye, n;
void main() {
  vec3 eye = normalize(toEye), nn = normalize(n);
  if (dot(nn, eye) < 0.0) nn = -nn;
  vec3 key = normalize(vec3(-0.45, 0.65, 0.75)), fill = normalize(vec3(0.7, -0.2, 0.5));
  float diffuse = 0.25 + 0.62 * max(dot(nn, key), 0.0) + 0.22 * max(dot(nn, fill), 0.0);
  float shine = 0.16 * pow(max(dot(nn, normalize(key + eye)), 0.0), 28.0);
  float rim = 0.14 * pow(1.0 - max(dot(nn, eye), 0.0), 3.0);
  gl_FragColor = vec4(colour.rgb * diffuse + shine + rim, colour.a);
}`;

// Camera direction of the named views: [azimuth, elevation] of the eye seen from the target.
const VIEWS = {A: [0, 0], P: [180, 0], R: [90, 0], L: [-90, 0], S: [180, 90], I: [0, -90]};
const VIEW_TITLES = {
  A: "from the front", P: "from behind", R: "from the patient's right",
  L: "from the patient's left", S: "from above", I: "from below",
};
const AXIS_ENDS = [["R", 0, 1], ["L", 0, -1], ["A", 1, 1], ["P", 1, -1], ["S", 2, 1], ["I", 2, -1]];
const AXIS_COLOURS = ["#f87171", "#4ade80", "#60a5fa"];
const FIELD_OF_VIEW = 0.45;

const sub = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) =>
  [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => { const s = Math.hypot(...a) || 1; return a.map((v) => v / s); };
const along = (a, d, s) => [a[0] + d[0] * s, a[1] + d[1] * s, a[2] + d[2] * s];

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// ---------------------------------------------------------------- geometry

function bytes(base64) {
  return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer;
}

function decodeMesh(mesh) {
  const steps = new Uint16Array(bytes(mesh.vertices));
  const positions = new Float32Array(steps.length);
  for (let i = 0; i < steps.length; i++) {
    positions[i] = mesh.origin[i % 3] + steps[i] * mesh.step[i % 3];
  }
  const Index = mesh.wide ? Uint32Array : Uint16Array;
  const faces = new Index(bytes(mesh.faces));
  return {positions, faces, normals: vertexNormals(positions, faces)};
}

// Area-weighted: the cross product of two edges is twice the area long.
function vertexNormals(positions, faces) {
  const normals = new Float32Array(positions.length);
  const at = (i) => [positions[3 * i], positions[3 * i + 1], positions[3 * i + 2]];
  for (let f = 0; f < faces.length; f += 3) {
    const [a, b, c] = [at(faces[f]), at(faces[f + 1]), at(faces[f + 2])];
    const n = cross(sub(b, a), sub(c, a));
    for (let k = 0; k < 3; k++) {
      for (let axis = 0; axis < 3; axis++) normals[3 * faces[f + k] + axis] += n[axis];
    }
  }
  return normals;
}

function cylinder({entry, target, radius}, sides = 32) {
  const axis = unit(sub(target, entry));
  const u = unit(cross(axis, Math.abs(axis[2]) < 0.9 ? [0, 0, 1] : [1, 0, 0]));
  const v = cross(axis, u);
  const positions = [], normals = [], faces = [];
  const push = (p, n) => { positions.push(...p); normals.push(...n); return positions.length / 3 - 1; };
  const caps = [push(entry, axis.map((x) => -x)), push(target, axis)];
  const rings = [];
  for (let i = 0; i < sides; i++) {
    const angle = (2 * Math.PI * i) / sides;
    const out = along(u.map((x) => x * Math.cos(angle)), v, Math.sin(angle));
    const [p, q] = [along(entry, out, radius), along(target, out, radius)];
    rings.push([push(p, out), push(q, out), push(p, axis.map((x) => -x)), push(q, axis)]);
  }
  for (let i = 0; i < sides; i++) {
    const [a, b] = [rings[i], rings[(i + 1) % sides]];
    faces.push(a[0], b[0], b[1], a[0], b[1], a[1], caps[0], b[2], a[2], caps[1], a[3], b[3]);
  }
  return {
    positions: new Float32Array(positions), normals: new Float32Array(normals),
    faces: new Uint16Array(faces),
  };
}

function bounds(objects) {
  const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
  for (const {positions} of objects) {
    for (let i = 0; i < positions.length; i++) {
      low[i % 3] = Math.min(low[i % 3], positions[i]);
      high[i % 3] = Math.max(high[i % 3], positions[i]);
    }
  }
  return {centre: low.map((v, i) => (v + high[i]) / 2), size: Math.hypot(...sub(high, low)) || 1};
}

// ---------------------------------------------------------------- camera

class OrbitCamera {
  constructor() { Object.assign(this, {azimuth: 28, elevation: 12, target: [0, 0, 0], distance: 500}); }

  frame({centre, size}, aspect) {
    this.target = centre;
    this.distance = (0.5 * size) / Math.tan(FIELD_OF_VIEW / 2) / Math.min(1, aspect);
  }

  // Rows: right, up, toward the eye. Azimuth 0 looks from the front; "up" has no pole.
  axes() {
    const [a, e] = [this.azimuth, this.elevation].map((d) => (d * Math.PI) / 180);
    const back = [Math.sin(a) * Math.cos(e), Math.cos(a) * Math.cos(e), Math.sin(e)];
    const up = [-Math.sin(a) * Math.sin(e), -Math.cos(a) * Math.sin(e), Math.cos(e)];
    return [cross(up, back), up, back];
  }

  turn(dx, dy) {
    this.azimuth = ((this.azimuth - dx * 0.4) % 360 + 360) % 360;
    this.elevation = Math.max(-90, Math.min(90, this.elevation + dy * 0.4));
  }

  pan(dx, dy, height) {
    const scale = (2 * this.distance * Math.tan(FIELD_OF_VIEW / 2)) / height;
    const [right, up] = this.axes();
    this.target = along(along(this.target, right, -dx * scale), up, dy * scale);
  }

  zoom(factor) { this.distance = Math.max(5, Math.min(5000, this.distance * factor)); }

  matrices(aspect) {
    const [r, u, b] = this.axes();
    const eye = along(this.target, b, this.distance);
    const near = this.distance * 0.05, far = this.distance * 4, f = 1 / Math.tan(FIELD_OF_VIEW / 2);
    return {
      view: [r[0], u[0], b[0], 0, r[1], u[1], b[1], 0, r[2], u[2], b[2], 0,
        -dot(r, eye), -dot(u, eye), -dot(b, eye), 1],
      projection: [f / aspect, 0, 0, 0, 0, f, 0, 0, 0, 0, (far + near) / (near - far), -1,
        0, 0, (2 * far * near) / (near - far), 0],
    };
  }
}

// ---------------------------------------------------------------- drawing

function compile(gl) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX_SHADER], [gl.FRAGMENT_SHADER, FRAGMENT_SHADER]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  return program;
}

function upload(gl, object) {
  const buffer = (target, data) => {
    const handle = gl.createBuffer();
    gl.bindBuffer(target, handle);
    gl.bufferData(target, data, gl.STATIC_DRAW);
    return handle;
  };
  object.buffers = {
    position: buffer(gl.ARRAY_BUFFER, object.positions),
    normal: buffer(gl.ARRAY_BUFFER, object.normals),
    faces: buffer(gl.ELEMENT_ARRAY_BUFFER, object.faces),
    type: object.faces instanceof Uint32Array ? gl.UNSIGNED_INT : gl.UNSIGNED_SHORT,
  };
}

function rgb(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255);
}

function makePainter(gl) {
  gl.getExtension("OES_element_index_uint");
  const program = compile(gl);
  const place = Object.fromEntries(
    ["view", "projection", "colour"].map((name) => [name, gl.getUniformLocation(program, name)]));
  const attributes = ["position", "normal"].map((name) => [name, gl.getAttribLocation(program, name)]);
  gl.enable(gl.DEPTH_TEST);
  gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);

  function draw(object, alpha) {
    for (const [name, at] of attributes) {
      gl.bindBuffer(gl.ARRAY_BUFFER, object.buffers[name]);
      gl.enableVertexAttribArray(at);
      gl.vertexAttribPointer(at, 3, gl.FLOAT, false, 0, 0);
    }
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, object.buffers.faces);
    gl.uniform4f(place.colour, ...rgb(object.colour), alpha);
    gl.drawElements(gl.TRIANGLES, object.faces.length, object.buffers.type, 0);
  }

  // Depth first, then colour: of a see-through surface only the front shows.
  function drawGlass(object) {
    gl.colorMask(false, false, false, false);
    draw(object, 1);
    gl.colorMask(true, true, true, true);
    gl.depthFunc(gl.LEQUAL);
    gl.enable(gl.BLEND);
    draw(object, object.layer.opacity);
    gl.disable(gl.BLEND);
    gl.depthFunc(gl.LESS);
  }

  // The part of a needle path that lies behind bone stays visible, faintly.
  function drawHidden(object) {
    gl.depthMask(false);
    gl.depthFunc(gl.GREATER);
    gl.enable(gl.BLEND);
    gl.enable(gl.CULL_FACE);
    draw(object, 0.5 * object.layer.opacity);
    gl.disable(gl.CULL_FACE);
    gl.disable(gl.BLEND);
    gl.depthFunc(gl.LESS);
    gl.depthMask(true);
  }

  return function paint(objects, camera, width, height) {
    gl.viewport(0, 0, width, height);
    gl.clearColor(0.055, 0.067, 0.086, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const {view, projection} = camera.matrices(width / height);
    gl.uniformMatrix4fv(place.view, false, view);
    gl.uniformMatrix4fv(place.projection, false, projection);
    const back = camera.axes()[2];
    const solid = (object) => object.layer.opacity >= 0.99;
    objects.filter(solid).forEach((object) => draw(object, 1));
    objects.filter((object) => !solid(object))
      .sort((a, b) => dot(a.centre, back) - dot(b.centre, back))
      .forEach(drawGlass);
    objects.filter((object) => object.isPath).forEach(drawHidden);
  };
}

function drawTriad(canvas, camera, ratio) {
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  const [right, up, back] = camera.axes();
  const [x0, y0, length] = [62 * ratio, canvas.height - 62 * ratio, 36 * ratio];
  const ends = AXIS_ENDS.map(([name, axis, sign]) => ({
    name, axis, sign, x: sign * right[axis], y: -sign * up[axis], z: sign * back[axis],
  })).sort((a, b) => a.z - b.z);
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.lineWidth = 2 * ratio;
  for (const {name, axis, sign, x, y, z} of ends) {
    pen.globalAlpha = 0.65 + 0.35 * z;
    pen.strokeStyle = pen.fillStyle = AXIS_COLOURS[axis];
    pen.setLineDash(sign > 0 ? [] : [2 * ratio, 3 * ratio]);
    pen.beginPath();
    pen.moveTo(x0, y0);
    pen.lineTo(x0 + x * length, y0 + y * length);
    pen.stroke();
    if (Math.abs(z) > 0.97) continue; // an axis along the view would be written on the others
    pen.font = `600 ${13 * ratio}px system-ui, sans-serif`;
    pen.fillText(name, x0 + x * (length + 12 * ratio), y0 + y * (length + 12 * ratio));
  }
  pen.globalAlpha = 1;
}

// ---------------------------------------------------------------- controls

function listenToPointers(canvas, camera, redraw) {
  const pointers = new Map();
  const spread = () => {
    const [a, b] = [...pointers.values()];
    return {x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, d: Math.hypot(a.x - b.x, a.y - b.y) || 1};
  };
  canvas.addEventListener("pointerdown", (e) => {
    canvas.setPointerCapture(e.pointerId);
    pointers.set(e.pointerId, {x: e.clientX, y: e.clientY});
  });
  canvas.addEventListener("pointermove", (e) => {
    const last = pointers.get(e.pointerId);
    if (!last) return;
    const before = pointers.size === 2 ? spread() : null;
    pointers.set(e.pointerId, {x: e.clientX, y: e.clientY});
    const [dx, dy] = [e.clientX - last.x, e.clientY - last.y];
    if (before) {
      const now = spread();
      camera.zoom(before.d / now.d);
      camera.pan(now.x - before.x, now.y - before.y, canvas.clientHeight);
    } else if (e.shiftKey || e.buttons & 6) camera.pan(dx, dy, canvas.clientHeight);
    else camera.turn(dx, dy);
    redraw();
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (e) => pointers.delete(e.pointerId));
  }
  canvas.addEventListener("contextmenu", (e) => e.preventDefault());
  canvas.addEventListener("wheel", (e) => {
    if (document.activeElement !== canvas) return; // the page scrolls until the view is clicked
    e.preventDefault();
    camera.zoom(Math.exp(e.deltaY * (e.deltaMode === 1 ? 0.04 : 0.0012)));
    redraw();
  }, {passive: false});
  const keys = {
    ArrowLeft: () => camera.turn(-20, 0), ArrowRight: () => camera.turn(20, 0),
    ArrowUp: () => camera.turn(0, -20), ArrowDown: () => camera.turn(0, 20),
    "+": () => camera.zoom(0.85), "=": () => camera.zoom(0.85), "-": () => camera.zoom(1.18),
  };
  canvas.addEventListener("keydown", (e) => {
    if (!keys[e.key]) return;
    e.preventDefault();
    keys[e.key]();
    redraw();
  });
}

function layerRow(layer, redraw) {
  const toggle = element("input", {type: "checkbox", checked: layer.visible});
  toggle.onchange = () => { layer.visible = toggle.checked; redraw(); };
  const slider = element("input", {
    type: "range", min: 0.05, max: 1, step: 0.05, value: layer.opacity,
    title: `opacity of ${layer.name}`, ariaLabel: `opacity of ${layer.name}`,
  });
  slider.oninput = () => { layer.opacity = Number(slider.value); redraw(); };
  const swatch = element("span", {className: "swatch"});
  swatch.style.background = layer.colour;
  return element("div", {className: "layer"}, element("label", {}, toggle, swatch, layer.name), slider);
}

// Levels x layers of checkboxes; the level's name shows that level alone.
function objectTable(objects, layers, levels, showLevel, redraw) {
  const head = element("tr", {}, element("th"), ...layers.map((layer) => {
    const swatch = element("span", {className: "swatch", title: layer.name});
    swatch.style.background = layer.colour;
    return element("th", {}, swatch);
  }));
  const rows = levels.map((level) => {
    const cells = layers.map((layer) => {
      const own = objects.filter((o) => o.level === level && o.layer === layer);
      if (!own.length) return element("td");
      const box = element("input", {
        type: "checkbox", checked: own.some((o) => o.visible), ariaLabel: `${level} ${layer.name}`,
      });
      box.onchange = () => { own.forEach((o) => { o.visible = box.checked; }); redraw(); };
      return element("td", {}, box);
    });
    const name = element("button", {type: "button", textContent: level, title: `show ${level} alone`});
    name.onclick = () => showLevel(level);
    return element("tr", {}, element("th", {}, name), ...cells);
  });
  return element("details", {className: "objects"},
    element("summary", {textContent: "Single objects"}), element("table", {}, head, ...rows));
}

function buildScene(data) {
  const layers = new Map();
  const layerOf = ({layer, colour, opacity, visible}) => {
    if (!layers.has(layer)) layers.set(layer, {name: layer, colour, opacity, visible});
    return layers.get(layer);
  };
  const add = (item, geometry, isPath) => {
    const layer = layerOf(item);
    const object = {...geometry, isPath, layer, level: item.level, colour: item.colour, visible: true};
    object.centre = bounds([object]).centre;
    return object;
  };
  const objects = [
    ...data.meshes.map((mesh) => add(mesh, decodeMesh(mesh), false)),
    ...data.paths.map((path) => add(path, cylinder(path), true)),
  ];
  return {objects, layers: [...layers.values()], levels: [...new Set(objects.map((o) => o.level))]};
}

function showScene(root, data) {
  const canvas = element("canvas", {
    tabIndex: 0, ariaLabel: "3D view: drag to turn, shift-drag or right-drag to move, plus and minus to zoom",
  });
  const gl = canvas.getContext("webgl", {antialias: true, alpha: false, preserveDrawingBuffer: true});
  if (!gl) {
    root.replaceChildren(element("p", {
      className: "fallback",
      textContent: "This browser has no WebGL, so the 3D view is not shown. Tables and figures are complete without it.",
    }));
    return;
  }
  const overlay = element("canvas", {className: "overlay"});
  const stage = element("div", {className: "stage"}, canvas, overlay,
    element("p", {className: "hint", textContent: "drag: turn · shift-drag: move · click, then wheel: zoom"}));
  const panel = element("div", {className: "panel"});
  root.replaceChildren(stage, panel);

  const {objects, layers, levels} = buildScene(data);
  const paint = makePainter(gl), camera = new OrbitCamera();
  objects.forEach((object) => upload(gl, object));
  let level = "", pending = false;
  const shown = () => objects.filter(
    (o) => o.visible && o.layer.visible && (!level || o.level === level));

  function resize() {
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    for (const each of [canvas, overlay]) {
      const size = [stage.clientWidth, stage.clientHeight].map((v) => Math.max(1, Math.round(v * ratio)));
      if (each.width !== size[0] || each.height !== size[1]) [each.width, each.height] = size;
    }
    return ratio;
  }
  function render() {
    pending = false;
    const ratio = resize();
    paint(shown(), camera, canvas.width, canvas.height);
    drawTriad(overlay, camera, ratio);
  }
  function redraw() {
    if (!pending) requestAnimationFrame(render);
    pending = true;
  }
  function reframe() {
    resize();
    const own = level ? objects.filter((o) => o.level === level) : objects;
    if (own.length) camera.frame(bounds(own), canvas.width / canvas.height);
    redraw();
  }
  function showLevel(name) {
    level = select.value = name;
    reframe();
  }

  const select = element("select", {ariaLabel: "vertebra"},
    new Option("All vertebrae", ""), ...levels.map((name) => new Option(name, name)));
  select.onchange = () => showLevel(select.value);
  const views = Object.entries(VIEWS).map(([name, [azimuth, elevation]]) => {
    const button = element("button", {type: "button", textContent: name, title: VIEW_TITLES[name]});
    button.onclick = () => { Object.assign(camera, {azimuth, elevation}); reframe(); };
    return button;
  });
  panel.append(select, element("div", {className: "views"}, ...views),
    ...layers.map((layer) => layerRow(layer, redraw)),
    objectTable(objects, layers, levels, showLevel, redraw));
  listenToPointers(canvas, camera, redraw);
  new ResizeObserver(redraw).observe(stage);
  reframe();
}

// A page may hold many scenes and a browser only some 16 WebGL contexts: the first scene starts
// at once, the others when they first come into sight.
function start(root) {
  showScene(root, JSON.parse(document.getElementById(root.dataset.scene).textContent));
}
const observer = new IntersectionObserver((entries) => {
  for (const {isIntersecting, target} of entries) {
    if (!isIntersecting) continue;
    observer.unobserve(target);
    start(target);
  }
}, {rootMargin: "200px"});
document.querySelectorAll("[data-scene]").forEach(
  (root, i) => i === 0 ? start(root) : observer.observe(root));
