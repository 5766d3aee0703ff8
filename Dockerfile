# The Loader's image. Build: docker build -t loader .

# What the image stands on: a Debian with this Node and a user `node`.
ARG BASE=node:26-slim

# 1. The sources as JavaScript.
FROM ${BASE} AS build
WORKDIR /build
COPY package.json package-lock.json ./
RUN npm ci
COPY tsconfig.json tsconfig.build.json ./
COPY lab/build.ts lab/
COPY docs/openapi.json docs/
COPY src src
RUN npm run build

# 2. What they need at run time.
FROM ${BASE} AS dependencies
WORKDIR /build
COPY package.json package-lock.json ./
RUN npm ci --omit=dev

# 3. The image.
FROM ${BASE}
# lspci names the graphics cards: without it, a device with such a card can not log in.
# npm and its kin are not needed any more.
RUN apt-get update \
  && apt-get install -y --no-install-recommends pciutils \
  && rm -rf /var/lib/apt/lists/* /usr/local/lib/node_modules /opt/yarn* \
  && find /usr/local/bin -xtype l -delete
WORKDIR /app
COPY --from=dependencies /build/node_modules node_modules
COPY --from=build /build/dist dist
COPY package.json ./
# MODEL_CACHE_DIR and STATE_DIR, as they are named by default. Volumes keep them over new versions of the image.
RUN install -d -o node -g node models state
VOLUME ["/app/models", "/app/state"]
ENV NODE_ENV=production HOST=0.0.0.0
EXPOSE 8080
USER node
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s --retries=3 \
  CMD ["node", "-e", "fetch('http://127.0.0.1:' + (process.env.PORT || 8080) + '/health').then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
# The young generation of V8 would grow by some 50 MiB under many transfers, and may stay so when they have ended.
CMD ["node", "--max-semi-space-size=2", "dist/main.js"]
